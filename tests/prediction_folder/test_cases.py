"""Which files of a folder belong to which case."""

from __future__ import annotations

from pathlib import Path

import pytest
from nnunetv2.utilities.utils import create_lists_from_splitted_dataset_folder

from nnunet_ext.prediction_folder.cases import case_of, cases_from, find_cases, not_taken_lines, segmented_cases


def folder_with(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


def test_channels_are_grouped_by_case_and_sorted(tmp_path):
    folder = folder_with(
        tmp_path, "b_0001.nii.gz", "b_0000.nii.gz", "a_0000.nii.gz", "a_0001.nii.gz", "notes.txt", "a.nii.gz"
    )
    cases = find_cases(folder, ".nii.gz")
    assert [case.name for case in cases] == ["a", "b"]
    assert [path.name for path in cases[1].files] == ["b_0000.nii.gz", "b_0001.nii.gz"]
    assert cases[0].previous_stage is None


def test_names_may_hold_dots_digits_and_what_looks_like_a_channel(tmp_path):
    """The channel is only what stands right before the ending; frame_0002 is part of a name."""
    names = ["p.01_frame_0002_0000.nii.gz", "p.01_frame_0003_0000.nii.gz", "007_0000.nii.gz"]
    cases = find_cases(folder_with(tmp_path, *names), ".nii.gz")
    assert [case.name for case in cases] == ["007", "p.01_frame_0002", "p.01_frame_0003"]


def test_cases_are_those_of_stock_nnunet(tmp_path):
    names = [f"{case}_{channel:04d}.nii.gz" for case in ("x", "x_1", "x_10", "y.z") for channel in (0, 1)]
    folder = folder_with(tmp_path, *names)
    stock = create_lists_from_splitted_dataset_folder(str(folder), ".nii.gz")
    assert [[str(path) for path in case.files] for case in find_cases(folder, ".nii.gz")] == stock


def test_another_ending_is_another_file(tmp_path):
    folder = folder_with(tmp_path, "a_0000.nii", "b_0000.nii.gz", "c_0000xnii")
    assert [case.name for case in find_cases(folder, ".nii")] == ["a"]


def test_half_written_files_are_no_cases(tmp_path):
    folder = folder_with(tmp_path, ".partial-a_0000.nii.gz", "b_0000.nii.gz")
    assert [case.name for case in find_cases(folder, ".nii.gz")] == ["b"]


def test_a_cascade_gets_the_segmentation_of_the_previous_stage(tmp_path):
    folder = folder_with(tmp_path, "a_0000.nii.gz")
    (case,) = find_cases(folder, ".nii.gz", previous_stage_folder=Path("lowres"))
    assert case.previous_stage == Path("lowres") / "a.nii.gz"


def test_a_list_of_files_is_named_after_the_first(tmp_path):
    case = case_of([tmp_path / "a_0000.nii.gz", tmp_path / "other_0001.nii.gz"], ".nii.gz")
    assert case.name == "a"
    assert [path.name for path in case.files] == ["a_0000.nii.gz", "other_0001.nii.gz"]


def test_a_folder_without_images_is_refused_with_the_name_that_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"CASE_0000\.nii\.gz.*holds no such file"):
        find_cases(folder_with(tmp_path, "a.nii.gz"), ".nii.gz")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_cases(tmp_path / "nowhere", ".nii.gz")


def test_cases_are_taken_from_a_folder_or_from_a_list_of_files(tmp_path):
    folder = folder_with(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz")
    of_folder = cases_from(str(folder), ".nii.gz", str(tmp_path / "stage"))
    of_list = cases_from(
        [[str(folder / f"a_000{channel}.nii.gz") for channel in (0, 1)]], ".nii.gz", tmp_path / "stage"
    )
    assert of_folder == of_list
    assert of_list[0].previous_stage == tmp_path / "stage" / "a.nii.gz"


def test_a_file_instead_of_a_folder_is_called_a_file(tmp_path):
    file = tmp_path / "heart_0000.nii.gz"
    file.touch()
    with pytest.raises(NotADirectoryError, match=r"read from a folder; .*heart_0000.nii.gz is a file"):
        find_cases(file, ".nii.gz")


# --- names that are no case ---


def test_side_files_of_macos_are_no_cases(tmp_path):
    folder = folder_with(tmp_path, "a_0000.nii.gz", "._a_0000.nii.gz", ".DS_Store")
    assert [case.name for case in find_cases(folder, ".nii.gz")] == ["a"]
    assert not_taken_lines(folder, ".nii.gz") == ["1 skipped as side files of macOS, such as ._a_0000.nii.gz"]


def test_side_files_of_macos_are_no_segmented_cases(tmp_path):
    assert segmented_cases(folder_with(tmp_path, "a.nii.gz", "._a.nii.gz"), ".nii.gz") == {"a"}


@pytest.mark.parametrize(
    "name",
    [
        "b.nii.gz",  # no channel
        "c_000.nii.gz",  # three digits
        "d-0000.nii.gz",
        "e.0000.nii.gz",
        "f_0000.nii",  # another ending
        "g_0000.NII.GZ",
        "h_0000.mha",
        ".i_0000.nii.gz",
    ],
)
def test_an_image_that_became_no_case_because_of_its_name_is_named(name, tmp_path):
    folder = folder_with(tmp_path, "good_0000.nii.gz", "notes.txt", name)
    assert [case.name for case in find_cases(folder, ".nii.gz")] == ["good"]
    assert not_taken_lines(folder, ".nii.gz") == [f"1 not taken, because images are named CASE_0000.nii.gz: {name}"]


def test_where_every_image_is_a_case_there_is_nothing_to_say(tmp_path):
    folder = folder_with(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "dataset.json", ".partial-b_0000.nii.gz")
    assert not_taken_lines(folder, ".nii.gz") == []


def test_a_folder_of_misnamed_images_only_is_refused_with_their_names(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no such file, but a\.nii\.gz, b_0000\.NII\.GZ"):
        find_cases(folder_with(tmp_path, "a.nii.gz", "b_0000.NII.GZ"), ".nii.gz")
