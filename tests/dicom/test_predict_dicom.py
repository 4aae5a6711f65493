"""`predict` of DICOM series: the result of the same image as NIfTI, and a DICOM segmentation with the same voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantoms import PLANES, edit, write_series

from nnunet_ext.cli import main
from nnunet_ext.input_checks.dicom_series import series_image, series_slices
from nnunet_ext.prediction_folder.case_table import read_cases
from nnunet_ext.prediction_folder.dicom_segmentation import (
    DicomSegmentationError,
    SegmentedSeries,
    segment_masks,
    write_dicom_segmentation,
)
from nnunet_ext.report.case_volumes import read_volumes
from nnunet_ext.report.data import gather

LABELS = {"left": (1,), "right": (2,)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number, axes in enumerate((PLANES[0], PLANES[9])):
        write_series(tmp_path / "images" / f"c{number}_0000", axes=axes, reverse=bool(number))
    return tmp_path / "images"


@pytest.fixture
def predict(make_model_folder: Any, images: Path, tmp_path: Path) -> Any:
    """`predict(output, *flags)`: the exit status of the command for the series."""
    model = make_model_folder()

    def run(output: Path, *flags: str, images: Path = images) -> int:
        return main(
            ["predict", "-i", str(images), "-o", str(output), "-m", str(model), "-device", "cpu",
             "--disable_progress_bar", *flags]
        )  # fmt: skip

    return run


def highdicom() -> Any:
    return pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'nnunet-ext[dicom]'")


def voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


# ---- images -------------------------------------------------------------------------------------------------------


def test_the_result_is_that_of_the_same_image_as_nifti(predict: Any, images: Path, tmp_path: Path) -> None:
    assert predict(tmp_path / "dicom") == 0
    (tmp_path / "nifti").mkdir()
    for folder in images.iterdir():
        sitk.WriteImage(series_image(series_slices(folder)), str(tmp_path / "nifti" / f"{folder.name}.nii.gz"))
    assert predict(tmp_path / "of_nifti", images=tmp_path / "nifti") == 0
    for name in ("c0.nii.gz", "c1.nii.gz", "maps/entropy/c0.nii.gz", "maps/entropy/c1.nii.gz", "cases.csv"):
        assert (tmp_path / "dicom" / name).read_bytes() == (tmp_path / "of_nifti" / name).read_bytes()


def test_a_bad_series_fails_its_case_by_name_and_no_other(
    predict: Any, images: Path, tmp_path: Path, capsys: Any
) -> None:
    (images / "c0_0000" / "IM0001").unlink()
    assert predict(tmp_path / "out") == 1
    assert "c0_0000: found 6 mm between IM0000 and IM0002" in capsys.readouterr().err
    assert [row["case"] for row in read_cases(tmp_path / "out" / "cases.csv")] == ["c1"]
    assert not (tmp_path / "out" / "c0.nii.gz").exists()


def test_check_looks_at_series_as_predict_does(
    make_model_folder: Any, images: Path, tmp_path: Path, capsys: Any
) -> None:
    """One lacks a slice, and its line names the folder; the other is good."""
    (images / "c0_0000" / "IM0001").unlink()
    words = ["check", str(images), "-m", str(make_model_folder()), "--disable_progress_bar"]
    assert main(words) == 1
    printed = capsys.readouterr().out
    assert "c0_0000  6 mm between IM0000 and IM0002" in printed
    assert "1 good, 1 bad of 2 cases" in printed


def test_check_wants_a_series_for_each_channel(make_model_folder: Any, images: Path, capsys: Any) -> None:
    words = ["check", str(images), "-m", str(make_model_folder(channels=2)), "--disable_progress_bar"]
    assert main(words) == 1
    assert "0 good, 2 bad of 2 cases" in capsys.readouterr().out


def test_the_report_draws_the_slices_of_a_series(predict: Any, images: Path, tmp_path: Path) -> None:
    """Read as the label map's image: a case's channel has the numbers of the series on the grid of the result."""
    assert predict(tmp_path / "out") == 0
    data = gather(tmp_path / "out")
    for case in data.cases:
        volumes = read_volumes(case, data.reader, data.stack_axis)
        series = sitk.GetArrayFromImage(series_image(series_slices(images / f"{case.name}_0000")))
        assert volumes.notes == ()
        assert volumes.channels[0].shape == volumes.segmentation.shape
        assert sorted(volumes.channels[0].ravel()) == sorted(series.ravel().astype(np.float32))


def test_parts_divide_the_series_among_them(predict: Any, tmp_path: Path) -> None:
    for part in "01":
        assert predict(tmp_path / "out", "-num_parts", "2", "-part_id", part) == 0
        assert len(list((tmp_path / "out").glob("*.nii.gz"))) == int(part) + 1


def test_series_beside_files_are_refused(predict: Any, images: Path, tmp_path: Path, capsys: Any) -> None:
    (images / "x_0000.nii.gz").touch()
    assert predict(tmp_path / "out") == 1
    assert "found both, such as x_0000.nii.gz" in capsys.readouterr().err


def test_a_segmentation_as_dicom_needs_series(predict: Any, make_image: Any, tmp_path: Path, capsys: Any) -> None:
    assert predict(tmp_path / "out", "--dicom-seg", images=make_image(tmp_path / "nifti")) == 1
    assert "--dicom-seg needs the DICOM series" in capsys.readouterr().err


# ---- segmentations ------------------------------------------------------------------------------------------------


def test_the_dicom_segmentation_has_the_voxels_of_the_label_map(predict: Any, images: Path, tmp_path: Path) -> None:
    seg = highdicom().seg
    assert predict(tmp_path / "out", "--dicom-seg") == 0
    for case in ("c0", "c1"):
        labels = voxels(tmp_path / "out" / f"{case}.nii.gz")
        assert set(np.unique(labels)) > {0}
        found = seg.segread(tmp_path / "out" / f"{case}.dcm")
        slices = series_slices(images / f"{case}_0000")
        uids = [sitk.ReadImage(str(each.path)).GetMetaData("0008|0018") for each in slices]
        read = found.get_pixels_by_source_instance(
            uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
        assert np.array_equal(read, labels)
        assert found.SeriesInstanceUID not in ("1.2.3.4", "")
        assert found.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3.4"
        assert [found.get_segment_description(number).segment_label for number in (1, 2)] == ["left", "right"]
        algorithm = found.get_segment_description(1).algorithm_identification[0]
        assert "nnunet_ext" in algorithm.AlgorithmName


@pytest.mark.parametrize("axes", PLANES[::3])
def test_every_voxel_of_the_segmentation_is_where_the_label_map_has_it(axes: Any, tmp_path: Path) -> None:
    seg = highdicom().seg
    write_series(tmp_path / "series", axes=axes, reverse=True)
    slices = series_slices(tmp_path / "series")
    image = series_image(slices)
    labels = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 3, image.GetSize()[::-1], dtype=np.uint8))
    labels.CopyInformation(image)
    sitk.WriteImage(labels, str(tmp_path / "a.nii.gz"))
    series = SegmentedSeries(tmp_path / "a.nii.gz", [each.path for each in slices], LABELS, "a model")
    write_dicom_segmentation(series, tmp_path / "a.dcm")
    volume = seg.segread(tmp_path / "a.dcm").get_volume(combine_segments=True)
    # by position: the affine of highdicom is from (slice, row, column) to mm in LPS
    for index in np.ndindex(volume.array.shape):
        position = (volume.affine @ [*index, 1])[:3]
        assert volume.array[index] == labels[labels.TransformPhysicalPointToIndex(position.tolist())]


def test_regions_may_overlap() -> None:
    labels = np.array([[[0, 1, 2, 3]]])
    masks = segment_masks(labels, [(1, 2, 3), (2, 3), (3,)])
    assert masks.shape == (1, 1, 4, 3)
    assert masks[0, 0].T.tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]


def test_a_segmentation_that_is_there_is_kept_and_one_that_is_missing_is_made(predict: Any, tmp_path: Path) -> None:
    highdicom()
    out = tmp_path / "out"
    assert predict(out, "--dicom-seg") == 0
    before = (out / "c0.dcm").read_bytes()
    (out / "c1.dcm").unlink()
    assert predict(out, "--dicom-seg", "--continue_prediction") == 0
    assert (out / "c0.dcm").read_bytes() == before
    assert (out / "c1.dcm").is_file()


def test_a_series_that_lacks_what_dicom_needs_fails_its_case(
    predict: Any, images: Path, tmp_path: Path, capsys: Any
) -> None:
    highdicom()
    for path in (images / "c0_0000").iterdir():
        edit(path, FrameOfReferenceUID=None)
    assert predict(tmp_path / "out", "--dicom-seg") == 1
    assert "c0: The segmentation is there, but not as DICOM." in capsys.readouterr().err
    assert (tmp_path / "out" / "c0.nii.gz").is_file()
    assert not (tmp_path / "out" / "c0.dcm").exists()
    assert (tmp_path / "out" / "c1.dcm").is_file()


def test_a_label_map_of_another_grid_is_refused(images: Path, make_image: Any, tmp_path: Path) -> None:
    highdicom()
    labels = make_image(tmp_path / "nifti", "a") / "a_0000.nii.gz"
    sources = [each.path for each in series_slices(images / "c0_0000")]
    with pytest.raises(DicomSegmentationError, match="must have the grid of its series"):
        write_dicom_segmentation(SegmentedSeries(labels, sources, LABELS, "a model"), tmp_path / "a.dcm")
