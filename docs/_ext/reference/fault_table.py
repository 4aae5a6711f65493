"""What goes wrong around a prediction or a training, what happens then, and which tests show it.

`tests/test_fault_table.py` looks whether the tests exist.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One fault; texts are Markdown.

    Attributes:
        fault: what goes wrong.
        happens: then. "Fails its case" is explained on the page.
        tests: that show it.
    """

    fault: str
    happens: str
    tests: tuple[str, ...]


FAULTS: dict[str, tuple[Fault, ...]] = {
    "Images": (
        Fault(
            "a `.nii.gz` is damaged at random, 1,000 times",
            "something is found, or both readers give the intact image",
            ("test_a_damaged_nii_gz_is_found_or_read_as_the_intact_file",),
        ),
        Fault(
            "a `.nii` is damaged at random, 1,000 times",
            "something is found, or both readers give what the standard says that the file holds",
            ("test_a_damaged_nii_is_found_or_read_as_the_standard_says",),
        ),
        Fault(
            "a voxel is changed in a file without a checksum (`.nii`, uncompressed `.mha` and `.nrrd`, TIFF), or a "
            "header is wrong but possible",
            "cannot be found",
            ("test_a_damaged_nii_is_found_or_read_as_the_standard_says",),
        ),
        Fault(
            "a header on which ITK crashes, hangs or takes all memory",
            "fails its case before ITK sees it; found by fuzzing, so others may be left",
            (
                "test_headers_that_break_itk_are_refused_unseen",
                "test_an_nrrd_header_that_breaks_itk_is_refused_too",
            ),
        ),
        Fault(
            "a DICOM series lacks a slice, has unequal distances, another series, time point or grid in its folder, "
            "a tilted gantry, colour or several frames per file",
            "fails its case",
            (
                "test_a_missing_slice_is_named_by_its_neighbours",
                "test_unequal_distances_are_refused",
                "test_two_series_in_a_folder_are_named",
                "test_two_time_points_are_refused",
                "test_slices_on_different_grids_are_refused",
                "test_a_tilted_gantry_is_refused_with_its_angle",
                "test_colour_is_refused",
                "test_multi_frame_objects_are_refused",
                "test_a_bad_series_fails_its_case_by_name_and_no_other",
            ),
        ),
        Fault(
            "a small file decompresses to a large one",
            "its stream is read no further than its header says; fails its case",
            ("test_a_bomb_takes_no_memory",),
        ),
        Fault(
            "a header announces more voxels than memory holds (known on Linux only)",
            "fails its case before they are read",
            ("test_voxels_that_no_memory_holds_are_refused_before_they_are_read",),
        ),
        Fault(
            "`--continue_prediction` gets other images whose cases have the same names",
            "is refused",
            ("test_a_prediction_continues_with_the_same_images_only",),
        ),
        Fault(
            "a network's outputs overflow, or are no numbers",
            "fails its case",
            ("test_probabilities_that_are_no_numbers_fail_their_case",),
        ),
    ),
    "Disks": (
        Fault(
            "the disk is full while a segmentation, a member, a map, probabilities or the row of the table "
            "is written, or a file is renamed",
            "fails its case",
            ("test_a_disk_that_is_full_fails_the_case_by_name_and_no_other",),
        ),
        Fault(
            "a small disk fills up within a run (a real one)",
            "whole cases stay, the others fail; with room, `--continue_prediction` completes them",
            (
                "test_a_disk_that_fills_up_leaves_whole_cases_only",
                "test_a_disk_that_fills_up_and_gets_room_loses_no_case",
            ),
        ),
        Fault(
            "the disk is full before the first case",
            "the run ends with the reason; the folder is free for the next",
            ("test_a_disk_that_is_full_at_the_start_ends_the_run_and_frees_the_folder",),
        ),
        Fault(
            "the disk is full when the tables are merged at the end",
            "the run ends with the reason; the rows of all cases are there",
            ("test_a_disk_that_is_full_at_the_last_table_keeps_the_cases",),
        ),
        Fault(
            "a writer leaves a cut file and reports nothing",
            "noticed by its size; fails its case",
            (
                "test_a_failing_writer_leaves_nothing",
                "test_a_cut_uncompressed_file_is_noticed",
            ),
        ),
        Fault(
            "an earlier prediction is there, and the new one cannot be written",
            "the earlier one stays",
            ("test_a_failing_writer_keeps_the_earlier_prediction",),
        ),
        Fault(
            "the disk is full during a training's sample or manifest",
            "the training ends; the last checkpoint and all samples before are intact, and `--c` continues",
            ("test_a_full_disk_while_sampling_ends_the_training_with_the_last_checkpoint_intact",),
        ),
        Fault(
            "the disk is full at `checkpoint_latest.pth`",
            "the one before stays",
            ("test_a_full_disk_at_the_checkpoint_to_resume_from_keeps_the_one_before",),
        ),
    ),
    "Folders and permissions": (
        Fault(
            "the output folder is in use by another run",
            "refused, with process, machine and time; nothing is touched",
            (
                "test_a_folder_in_use_is_refused_and_not_touched",
                "test_a_folder_in_use_is_refused_with_who_holds_it_and_what_to_do",
            ),
        ),
        Fault(
            "... by the same part, or by runs with another number of parts",
            "refused",
            (
                "test_parts_share_a_folder_but_not_a_part",
                "test_runs_that_divide_the_cases_in_another_way_exclude_each_other",
            ),
        ),
        Fault(
            "... by a run that was killed",
            "the lock ended with it; nobody is blocked",
            ("test_a_killed_run_blocks_nobody",),
        ),
        Fault(
            "the run is interrupted (Ctrl-C)",
            "the folder is free",
            ("test_a_run_that_is_interrupted_frees_the_folder",),
        ),
        Fault(
            "the file system has no locks",
            "a warning; the run goes on",
            ("test_a_file_system_without_locks_is_warned_about_and_used",),
        ),
        Fault(
            "the output folder is read-only",
            "refused by name",
            ("test_a_read_only_output_folder_is_named",),
        ),
        Fault(
            "the output folder, or one above it, is a file",
            "refused by name; the file stays",
            (
                "test_an_output_that_is_a_file_is_refused_and_kept",
                "test_a_file_in_the_place_of_the_folder_is_named",
            ),
        ),
        Fault(
            "an image may not be read",
            "fails its case",
            ("test_an_image_that_may_not_be_read_fails_its_case_by_name",),
        ),
        Fault(
            "names with blanks, accents or other scripts; paths of a thousand characters",
            "no fault",
            (
                "test_names_of_any_script_are_predicted",
                "test_paths_of_a_thousand_characters_are_predicted",
            ),
        ),
        Fault(
            "a name so long that no temporary one fits",
            "fails its case",
            ("test_a_case_whose_name_leaves_no_room_for_a_temporary_one_fails_alone_by_name",),
        ),
        Fault(
            "the console lacks a character of a path",
            "it is written as its code",
            ("test_messages_reach_a_console_that_lacks_the_characters",),
        ),
    ),
    "Threads and memory": (
        Fault(
            "preprocessing raises, runs out of memory, or calls `sys.exit`",
            "fails its case",
            ("test_what_preprocessing_raises_fails_its_case_by_name",),
        ),
        Fault(
            "the writing thread raises or calls `sys.exit`",
            "fails its case",
            ("test_what_the_writing_thread_raises_fails_its_case_by_name",),
        ),
        Fault(
            "a batch does not fit into the GPU",
            "half of it is tried, with a warning",
            ("test_a_batch_that_does_not_fit_is_halved_until_it_does",),
        ),
        Fault(
            "the sums over the members do not fit into the GPU",
            "the case is summed up in main memory, with a warning",
            (
                "test_sums_that_do_not_fit_into_a_gpu_are_kept_in_main_memory",
                "test_other_errors_on_a_gpu_are_not_taken_for_memory_that_runs_out",
            ),
        ),
        Fault(
            "not even one patch fits",
            "fails its case",
            ("test_memory_that_runs_out_even_for_a_single_patch_fails_the_case_by_name",),
        ),
        Fault(
            "the network raises anything else",
            "no second try; fails its case",
            ("test_other_errors_of_the_network_are_not_taken_for_memory_that_runs_out",),
        ),
        Fault(
            "a case cannot fit into the main memory (known on Linux only)",
            "refused before its first member, with the estimate and what is available",
            (
                "test_only_the_case_that_is_too_large_fails",
                "test_what_needs_the_sums_is_refused_by_name",
            ),
        ),
    ),
    "Killed runs": (
        Fault(
            "a prediction is killed (`kill -9`) at 50 random times",
            "no partial file under a final name; continuing gives the same bytes and the same rows",
            ("test_killed_predictions_leave_whole_files_and_continue_to_the_same_result",),
        ),
        Fault(
            "the same, as a process of its own",
            "the same",
            ("test_a_killed_prediction_leaves_whole_files_and_is_completed",),
        ),
        Fault(
            "many cases, bad files in between, and kills (`benchmarks/load.py`: a thousand)",
            "every good case once, the same bytes; every bad one with its reason",
            ("test_kills_and_bad_files_lose_no_case_and_double_none",),
        ),
        Fault(
            "parts of a prediction are killed",
            "their rows are kept and merged later",
            ("test_parts_continue_after_being_killed",),
        ),
        Fault(
            "workers of `predict --cluster ray` are killed (`kill -9`) at 50 random times",
            "the same bytes, table included, as one undisturbed process with as many threads",
            ("test_killed_workers_change_no_byte",),
        ),
        Fault(
            "a case ends every worker that it is given to",
            "it fails after its tenth worker; the other cases go on",
            ("test_a_case_that_ends_every_worker_is_given_up_and_takes_no_other_with_it",),
        ),
        Fault(
            "a submitted job reaches its time limit, or SLURM puts it back into the queue",
            "it continues; a training without a checkpoint begins again",
            (
                "test_a_job_that_is_warned_of_its_time_limit_goes_on_with_the_continuing_command",
                "test_a_job_that_slurm_put_back_into_the_queue_continues",
                "test_a_training_without_a_checkpoint_begins_again",
            ),
        ),
        Fault(
            "temporary folders of killed runs",
            "removed by the next run that has the folder alone; a part removes those of its cases",
            ("test_what_killed_runs_left_is_removed_by_a_run_that_has_the_folder_alone",),
        ),
        Fault(
            "`nnunet_ext teach` is killed within a file, or while it removes another teacher's files",
            "whole files stay and the others are written by the next run; files without a record are written again",
            (
                "test_a_killed_run_is_resumed_with_what_is_complete",
                "test_files_without_a_record_are_not_taken_for_complete",
            ),
        ),
        Fault(
            "a training is killed within a sample, or between sample and manifest",
            "it continues from its last checkpoint and makes the sample again",
            ("test_a_training_killed_while_it_samples_continues",),
        ),
        Fault(
            "a training starts again in the folder of a killed one",
            "half-written samples are removed",
            ("test_half_written_samples_do_not_outlive_a_new_training",),
        ),
        Fault(
            "the same call twice",
            "the same bytes in every file",
            ("test_the_same_prediction_twice_gives_the_same_bytes",),
        ),
    ),
    "The server": (
        Fault(
            "its worker is killed (`kill -9`) at 50 random times",
            "every request gets the same bytes as an undisturbed one",
            (
                "test_a_killed_worker_changes_no_result",
                "test_killed_workers_with_a_network_change_no_result",
            ),
        ),
        Fault(
            "its worker hangs, or ends twice with one case",
            "the request gets status 504 or 500; the next one gets its result",
            (
                "test_a_worker_that_hangs_is_replaced",
                "test_a_worker_that_dies_is_replaced_and_the_case_predicted_once_more",
            ),
        ),
        Fault(
            "an upload is too large, announces too much, or decompresses to too much",
            "status 413 before its voxels are in memory",
            (
                "test_an_upload_beyond_the_limit_is_refused_whether_or_not_it_says_so",
                "test_a_small_file_that_announces_a_large_volume_is_refused_unread",
                "test_a_small_file_that_decompresses_to_a_large_one_is_refused",
                "test_an_image_that_grows_when_it_is_resampled_is_refused",
            ),
        ),
        Fault(
            "an upload names a file of the server, in its own name or in its header",
            "nothing outside of the request's folder is written or read",
            (
                "test_the_server_chooses_the_names_of_files",
                "test_metaimage_files_hold_their_own_voxels",
                "test_nrrd_files_hold_their_own_voxels",
                "test_content_of_another_format_is_refused",
            ),
        ),
        Fault(
            "more requests than the queue takes",
            "status 503; the others get their own results",
            (
                "test_requests_beyond_the_queue_are_turned_away",
                "test_requests_at_the_same_time_get_their_own_results",
            ),
        ),
    ),
    "JSON files": (
        Fault(
            "`calibration.json` or `samples.json` holds values of another kind, numbers beyond all limits, or "
            "brackets without end",
            "refused by name",
            ("test_values_of_other_kinds_are_refused_in_words",),
        ),
    ),
    "Checkpoints": (
        Fault(
            "it holds an object that can run code",
            "refused with the object's name and the way to trust it; nothing runs",
            (
                "test_code_in_a_checkpoint_is_not_run",
                "test_blocked_system_modules_are_named_too",
                "test_a_checkpoint_that_runs_code_is_refused_and_runs_nothing",
            ),
        ),
        Fault(
            "it is cut short",
            "refused by name",
            ("test_truncated_file_is_named",),
        ),
        Fault(
            "a bit is flipped",
            "refused by its checksum",
            (
                "test_a_flipped_bit_is_noticed_by_the_checksum",
                "test_changed_weights_are_noticed",
            ),
        ),
        Fault(
            "it is another kind of file, or lacks parts, or they have another form",
            "refused with what is wrong",
            (
                "test_file_of_another_kind_is_named",
                "test_a_file_of_another_kind_is_refused_with_what_it_lacks",
                "test_a_file_whose_parts_have_another_form_is_refused",
            ),
        ),
        Fault(
            "weights are NaN or infinite",
            "refused with the first tensor",
            ("test_weights_that_are_not_finite_are_refused_by_file_and_tensor",),
        ),
        Fault(
            "a sample is whole, but not the one that the training wrote",
            "refused, by the SHA-256 of `samples.json`; the posterior is not made of it either",
            (
                "test_a_sample_that_was_exchanged_is_refused",
                "test_the_posterior_is_not_made_of_a_sample_that_was_exchanged",
            ),
        ),
        Fault(
            "`samples.json` is damaged",
            "refused by name",
            ("test_a_manifest_that_is_none_is_named",),
        ),
        Fault(
            "another trainer, configuration or mirror axes than the first member",
            "refused",
            ("test_members_of_different_trainings_are_refused_by_name",),
        ),
        Fault(
            "trained with another spacing, normalization, architecture, order of axes or other labels than "
            "the first member",
            "refused with what differs",
            (
                "test_folds_of_other_plans_or_labels_are_refused_with_what_differs",
                "test_the_intensities_of_a_ct_dataset_must_be_the_same",
            ),
        ),
        Fault(
            "trained with other plans than those in the folder",
            "a warning with what differs: stock uses the folder's as well, and some edit them on purpose",
            ("test_a_folder_whose_plans_changed_since_the_training_is_warned_about",),
        ),
        Fault(
            "another number of classes, or another network",
            "refused with the tensor",
            (
                "test_a_model_of_another_number_of_classes_does_not_fit",
                "test_weights_that_do_not_fit_the_network_are_refused_by_name",
            ),
        ),
        Fault(
            "the same file twice",
            "a warning: it counts twice",
            ("test_the_same_file_twice_is_warned_about",),
        ),
        Fault(
            "a model folder of other labels, channels or readers",
            "refused",
            ("test_model_folders_that_do_not_belong_together_are_refused",),
        ),
        Fault(
            "a member was retrained since the calibration",
            "refused",
            ("test_a_member_that_was_trained_again_is_refused",),
        ),
    ),
}
