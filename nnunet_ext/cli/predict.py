"""`nnunet_ext predict`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from nnunet_ext.cli.calibrated_flag import add_calibrated_flag, chosen_calibration
from nnunet_ext.cli.cluster_flags import add_cluster_flags, chosen_cluster
from nnunet_ext.cli.command import Command
from nnunet_ext.cli.ensemble_flags import add_ensemble_flags, ensemble_options, log_cost, log_progress, say_where
from nnunet_ext.cli.maps_flag import add_maps_flag, requested_maps
from nnunet_ext.cli.model_flags import model_choice
from nnunet_ext.cli.postprocess_flag import add_postprocess_flag, chosen_postprocessing
from nnunet_ext.cli.submit_flags import add_submit_flags, chosen_job, submit_this
from nnunet_ext.options import MAP_TYPES, OutputOptions, PredictOptions


def predict_flags(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("images and results")
    files.add_argument(
        "-i",
        required=True,
        metavar="FOLDER",
        help="folder of the images, named CASE_0000<ending>, or of folders CASE_0000 with a DICOM series each",
    )
    files.add_argument("-o", required=True, metavar="FOLDER", help="output folder; created if missing")
    files.add_argument(
        "--continue_prediction", "--c", action="store_true", help="skip cases whose files are complete"
    )
    files.add_argument("-num_parts", type=int, default=1, metavar="N", help="divide the cases among N runs")
    files.add_argument("-part_id", type=int, default=0, metavar="K", help="which of the N runs this is, from 0")

    add_ensemble_flags(parser)
    add_postprocess_flag(parser)
    add_calibrated_flag(
        parser,
        "calibrated probabilities, predicted Dice and a verdict per case; segmentations do not change. Refused if it "
        "was fitted for another ensemble, but folds may differ",
    )

    results = parser.add_argument_group("output")
    add_maps_flag(results)
    results.add_argument(
        "--map-dtype",
        choices=MAP_TYPES,
        default="float32",
        help="data type of the maps; float16 rounds to half precision and is stored as float32, uint8 rounds to "
        "multiples of 1/255 and is for NIfTI only; both are smaller and faster to write (default: float32)",
    )
    results.add_argument(
        "--save_probabilities", action="store_true", help="write CASE.npz and CASE.pkl, as stock does"
    )
    results.add_argument(
        "--save_members",
        action="store_true",
        help="write each member's own segmentation, and each classifier's of a Streaming model",
    )

    results.add_argument(
        "--dicom-seg",
        action="store_true",
        help="of DICOM series, write CASE.dcm, too: a DICOM segmentation that refers to the series; needs the extra "
        "dicom",
    )

    machine = parser.add_argument_group("background work")
    machine.add_argument("-npp", type=int, default=1, help="0: do not preprocess the next case ahead (default: 1)")
    machine.add_argument("-nps", type=int, default=1, help="0: do not write while the next case runs (default: 1)")
    add_cluster_flags(parser)
    machine.add_argument("--verbose", action="store_true", help="more messages while running")
    add_submit_flags(parser)


def predict(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.predict import predict_folder
    from nnunet_ext.inference.outcome_text import closing_lines

    if arguments.disable_progress_bar:
        log_progress()
    options = predict_options(arguments)
    if (job := chosen_job(arguments)) is not None:
        require_all_parts(options.output)
        parts = options.output.num_parts
        return submit_this(arguments, job, ["--continue_prediction"], parts=parts if parts > 1 else None)
    if options.cluster is None:
        say_where(options.ensemble)
    else:  # the networks run elsewhere
        log_cost()
    outcome = predict_folder(options)
    print(*closing_lines(outcome, Path(arguments.o)), sep="\n")
    for name, message in outcome.failed.items():
        print(f"  {name}: {message}", file=sys.stderr)
    return 1 if outcome.failed else 0


def require_all_parts(output: OutputOptions) -> None:
    """Refuses one part by itself as a job, because `--submit` submits all of them.

    Raises:
        ValueError: if a part is named.
    """
    if output.part_id != 0:
        raise ValueError(
            f"--submit makes a job of each of the -num_parts {output.num_parts} parts; found -part_id "
            f"{output.part_id}. Leave out -part_id."
        )


def how_to_go_on(arguments: argparse.Namespace) -> str:
    """What is complete after Ctrl-C, and how to continue."""
    from nnunet_ext.prediction_folder.case_table import recorded_rows

    done = len(recorded_rows(Path(arguments.o)))
    return f"{done} cases are complete in {arguments.o}; run it again with --continue_prediction for the rest."


def predict_options(arguments: argparse.Namespace) -> PredictOptions:
    """The flags as options.

    Raises:
        ValueError: if flags contradict each other.
    """
    return PredictOptions(
        images=Path(arguments.i),
        results=Path(arguments.o),
        model=model_choice(arguments),
        ensemble=replace(ensemble_options(arguments), postprocess=chosen_postprocessing(arguments)),
        output=OutputOptions(
            maps=requested_maps(arguments.maps),
            map_type=arguments.map_dtype,
            save_probabilities=arguments.save_probabilities,
            save_members=arguments.save_members,
            continue_prediction=arguments.continue_prediction,
            previous_stage=Path(arguments.prev_stage_predictions) if arguments.prev_stage_predictions else None,
            num_parts=arguments.num_parts,
            part_id=arguments.part_id,
            prepare_ahead=arguments.npp > 0,
            write_behind=arguments.nps > 0,
        ),
        calibration=chosen_calibration(arguments),
        cluster=chosen_cluster(arguments),
        dicom_seg=arguments.dicom_seg,
    )


COMMAND = Command(
    "predict",
    "segment images with an ensemble of checkpoints, with uncertainty",
    predict_flags,
    predict,
    """example:
  $ nnunet_ext predict -i images -o results -m nnUNet_results/Dataset123_Heart/nnUNetTrainer__nnUNetPlans__2d
  on the CPU: PyTorch finds no GPU
  INFO: nnUNetTrainer__nnUNetPlans__2d: 5 members x 4 transforms = 20 passes per case (flip-none, ...)
  case 10 of 10: heart_010: 100%|##########| 50/50 [00:41<00:00,  1.21member/s]
  10 predicted, 0 failed: results
    members: 5 per case
    open first: heart_007
    table: results/cases.csv
  $ ls results
  cases.csv  dataset.json  heart_001.nii.gz  ...  maps  plans.json  predict_args.json""",
    how_to_go_on=how_to_go_on,
    status_1="some cases failed; the others are predicted",
)
