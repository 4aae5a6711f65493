"""A case is written as nnU-Net writes it, plus maps and members, or not at all."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch
from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

import nnunet_ext
from nnunet_ext.options import OutputOptions
from nnunet_ext.prediction_folder.case_files import (
    CaseContents,
    CasePrediction,
    ImageFormat,
    is_complete,
    member_folder_name,
    write_case,
    write_run_description,
)
from nnunet_ext.prediction_folder.case_table import CaseTable, read_cases

SHAPE_ZYX = (3, 4, 5)
MEMBERS = ("fold_0/checkpoint_final", "fold_1/checkpoint_final")
PROPERTIES = {
    "sitk_stuff": {
        "spacing": (0.5, 0.75, 2.0),
        "origin": (1.0, 2.0, 3.0),
        "direction": tuple(np.eye(3).ravel()),
    },
    "nibabel_stuff": {"original_affine": np.diag([0.5, 0.75, 2.0, 1.0])},
    "spacing": [2.0, 0.75, 0.5],
    "shape_before_cropping": SHAPE_ZYX,
    "bbox_used_for_cropping": [[0, 3], [0, 4], [0, 5]],
}


def _prediction(case: str = "case.1", *, seed: int = 0, everything: bool = True, depth: int = 3) -> CasePrediction:
    shape = (depth, *SHAPE_ZYX[1:])
    rng = np.random.default_rng(seed)
    return CasePrediction(
        case=case,
        segmentation=rng.integers(0, 2, shape).astype(np.uint8),
        properties=PROPERTIES,
        row={"members": 2, "mean_entropy": 0.25, "flags": []},
        maps={"entropy": rng.random(shape, dtype=np.float32)},
        probabilities=rng.random((2, *shape), dtype=np.float32) if everything else None,
        member_segmentations=(
            {name: rng.integers(0, 2, shape).astype(np.uint8) for name in MEMBERS} if everything else {}
        ),
    )


def _write(
    prediction: CasePrediction,
    folder: Path,
    *,
    reader_writer: BaseReaderWriter | None = None,
    file_ending: str = ".nii.gz",
    table: CaseTable | None = None,
) -> None:
    image_format = ImageFormat(file_ending, reader_writer or SimpleITKIO())
    write_case(prediction, folder, image_format, table or CaseTable(folder, keep_existing=True))


def _complete(case: str, folder: Path, member_names: Sequence[str] = MEMBERS, **changes: Any) -> bool:
    options = OutputOptions(**{"maps": ["entropy"], "save_probabilities": True, **changes})
    contents = CaseContents(options, member_names=member_names)
    return is_complete(case, folder, ImageFormat(".nii.gz", SimpleITKIO()), contents)


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


class FailsOnSegmentation(SimpleITKIO):
    """Writes half a file and fails, but only for the case's own segmentation: after maps and members."""

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> None:
        if "members" in Path(output_fname).parts:
            super().write_seg(seg, output_fname, properties)
            return
        Path(output_fname).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")


class CutsSilently(SimpleITKIO):
    """Leaves a cut file without an error, as SimpleITK does on a full disk."""

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> None:
        super().write_seg(seg, output_fname, properties)
        whole = Path(output_fname).read_bytes()
        Path(output_fname).write_bytes(whole[: len(whole) // 2])


class CutsTo40Bytes(SimpleITKIO):
    """The same for a format without compression."""

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> None:
        super().write_seg(seg, output_fname, properties)
        Path(output_fname).write_bytes(Path(output_fname).read_bytes()[:40])


def test_layout_and_content(tmp_path: Path) -> None:
    prediction = _prediction()
    _write(prediction, tmp_path)

    assert _files(tmp_path) == [
        "case.1.nii.gz",
        "case.1.npz",
        "case.1.pkl",
        "cases.csv",
        "maps/entropy/case.1.nii.gz",
        "members/fold_0__checkpoint_final/case.1.nii.gz",
        "members/fold_1__checkpoint_final/case.1.nii.gz",
    ]
    np.testing.assert_array_equal(_voxels(tmp_path / "case.1.nii.gz"), prediction.segmentation)
    np.testing.assert_array_equal(
        _voxels(tmp_path / "maps" / "entropy" / "case.1.nii.gz"), prediction.maps["entropy"]
    )
    np.testing.assert_array_equal(
        _voxels(tmp_path / "members" / "fold_1__checkpoint_final" / "case.1.nii.gz"),
        prediction.member_segmentations["fold_1/checkpoint_final"],
    )
    with np.load(tmp_path / "case.1.npz") as stored:
        assert stored.files == ["probabilities"]
        assert stored["probabilities"].dtype == np.float32
        np.testing.assert_array_equal(stored["probabilities"], prediction.probabilities)
    assert str(pickle.loads((tmp_path / "case.1.pkl").read_bytes())) == str(PROPERTIES)
    assert read_cases(tmp_path / "cases.csv") == [
        {"case": "case.1", "members": "2", "mean_entropy": "0.25", "flags": ""}
    ]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_segmentation_has_the_geometry_of_the_image(tmp_path: Path) -> None:
    _write(_prediction(), tmp_path)
    for name in ("case.1.nii.gz", "maps/entropy/case.1.nii.gz"):
        image = sitk.ReadImage(str(tmp_path / name))
        assert image.GetSpacing() == (0.5, 0.75, 2.0)
        assert image.GetOrigin() == (1.0, 2.0, 3.0)


def test_only_what_was_asked_for(tmp_path: Path) -> None:
    _write(_prediction("a", everything=False), tmp_path / "new" / "folder")
    assert _files(tmp_path / "new" / "folder") == ["a.nii.gz", "cases.csv", "maps/entropy/a.nii.gz"]


def test_tiff_spacing_files_lie_beside_their_images(tmp_path: Path) -> None:
    prediction = _prediction("a")
    _write(prediction, tmp_path, reader_writer=Tiff3DIO(), file_ending=".tif")
    assert _files(tmp_path) == [
        "a.json",
        "a.npz",
        "a.pkl",
        "a.tif",
        "cases.csv",
        "maps/entropy/a.json",
        "maps/entropy/a.tif",
        "members/fold_0__checkpoint_final/a.json",
        "members/fold_0__checkpoint_final/a.tif",
        "members/fold_1__checkpoint_final/a.json",
        "members/fold_1__checkpoint_final/a.tif",
    ]
    segmentation, properties = Tiff3DIO().read_seg(str(tmp_path / "a.tif"))
    np.testing.assert_array_equal(segmentation[0], prediction.segmentation)
    assert properties["spacing"] == [2.0, 0.75, 0.5]


def test_png_dataset_has_float_tiff_maps(tmp_path: Path) -> None:
    prediction = _prediction("a", everything=False, depth=1)
    _write(prediction, tmp_path, reader_writer=NaturalImage2DIO(), file_ending=".png")
    assert _files(tmp_path) == ["a.png", "cases.csv", "maps/entropy/a.tif"]
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "maps" / "entropy" / "a.tif"), prediction.maps["entropy"][0]
    )
    contents = CaseContents(OutputOptions(maps=["entropy"]))
    assert is_complete("a", tmp_path, ImageFormat(".png", NaturalImage2DIO()), contents)


@pytest.mark.parametrize("reader_writer", [FailsOnSegmentation(), CutsSilently()])
def test_a_failing_writer_leaves_nothing(tmp_path: Path, reader_writer: BaseReaderWriter) -> None:
    table = CaseTable(tmp_path, keep_existing=False)
    with pytest.raises(OSError, match=r"No space left|case\.1\.nii\.gz was not written completely"):
        _write(_prediction(), tmp_path, reader_writer=reader_writer, table=table)
    assert list(tmp_path.iterdir()) == []


def test_a_cut_uncompressed_file_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(
        OSError, match=r"40 of at least 316 bytes are there.*--continue_prediction"
    ):  # a header of 256 bytes and 3 * 4 * 5 voxels, uint8
        _write(_prediction("a", everything=False), tmp_path, reader_writer=CutsTo40Bytes(), file_ending=".gipl")
    assert _files(tmp_path) == ["cases.csv"]
    assert read_cases(tmp_path / "cases.csv") == []


def test_a_failing_writer_keeps_the_earlier_prediction(tmp_path: Path) -> None:
    _write(_prediction(seed=1), tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in _files(tmp_path)}
    with pytest.raises(OSError, match="No space left"):
        _write(_prediction(seed=2), tmp_path, reader_writer=FailsOnSegmentation())
    assert {name: (tmp_path / name).read_bytes() for name in _files(tmp_path)} == before


def test_a_second_prediction_replaces_the_first(tmp_path: Path) -> None:
    _write(_prediction(seed=1), tmp_path)
    second = _prediction(seed=2)
    _write(second, tmp_path)
    np.testing.assert_array_equal(_voxels(tmp_path / "case.1.nii.gz"), second.segmentation)
    np.testing.assert_array_equal(_voxels(tmp_path / "maps/entropy/case.1.nii.gz"), second.maps["entropy"])


def test_files_of_the_case_that_are_not_written_again_are_removed(tmp_path: Path) -> None:
    """Those of other cases and what is no file of a prediction stay."""
    outdated = ["case.1.npz", "case.1.pkl", "covering_masks/case.1.nii.gz", "members/fold_7/case.1.nii.gz"]
    outdated += ["maps/variance/case.1.nii.gz", "maps/variance/case.1.tif", "maps/variance/case.1.json"]
    others = ["case.10.npz", "case.1.txt", "maps/variance/case.10.nii.gz"]
    for name in (*outdated, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    _write(_prediction(everything=False), tmp_path)
    assert _files(tmp_path) == sorted(["case.1.nii.gz", "cases.csv", "maps/entropy/case.1.nii.gz", *others])


class _LooksAtTheFolder(CaseTable):
    """Notes whether the segmentation is there when the row is added."""

    segmentation_was_there: bool | None = None

    def add(self, row: Any) -> None:
        self.segmentation_was_there = (self.folder / "case.1.nii.gz").exists()
        super().add(row)


@pytest.mark.parametrize("earlier_prediction", [False, True])
def test_the_segmentation_comes_after_the_row(tmp_path: Path, earlier_prediction: bool) -> None:
    if earlier_prediction:
        _write(_prediction(seed=1), tmp_path)
    table = _LooksAtTheFolder(tmp_path, keep_existing=True)
    _write(_prediction(seed=2), tmp_path, table=table)
    assert table.segmentation_was_there is False
    assert (tmp_path / "case.1.nii.gz").exists()


def test_the_segmentation_is_the_last_file_to_get_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed before the last rename has no segmentation, so the case is predicted again."""
    replace = Path.replace

    def killed(staged: Path, target: Path) -> Path:
        if target.name == ".partial-case.1.nii.gz" and target.parent == tmp_path:
            raise KeyboardInterrupt
        return replace(staged, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        _write(_prediction(), tmp_path)
    assert _files(tmp_path) == [
        "case.1.npz",
        "case.1.pkl",
        "cases.csv",
        "maps/entropy/case.1.nii.gz",
        "members/fold_0__checkpoint_final/case.1.nii.gz",
        "members/fold_1__checkpoint_final/case.1.nii.gz",
    ]
    assert not _complete("case.1", tmp_path)
    monkeypatch.undo()
    _write(_prediction(), tmp_path)
    assert _complete("case.1", tmp_path)


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    stale = tmp_path / ".partial-case.1" / "maps" / "entropy" / "case.1.nii.gz"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half a file")
    _write(_prediction(everything=False), tmp_path)
    assert _files(tmp_path) == ["case.1.nii.gz", "cases.csv", "maps/entropy/case.1.nii.gz"]
    assert not stale.exists()


@pytest.mark.parametrize("missing", ["a.nii.gz", "a.npz", "a.pkl", "maps/entropy/a.nii.gz"])
def test_a_case_is_complete_when_nothing_that_was_asked_for_is_missing(tmp_path: Path, missing: str) -> None:
    _write(_prediction("a"), tmp_path, reader_writer=NibabelIO())
    assert _complete("a", tmp_path)
    assert _complete("a", tmp_path, maps=[], save_probabilities=False, member_names=())
    (tmp_path / missing).unlink()
    assert not _complete("a", tmp_path)


def test_a_case_is_not_complete_with_another_map_or_member(tmp_path: Path) -> None:
    _write(_prediction("a"), tmp_path)
    assert not _complete("a", tmp_path, maps=["entropy", "variance"])
    assert not _complete("a", tmp_path, member_names=[*MEMBERS, "fold_2/checkpoint_final"])
    assert not _complete("b", tmp_path)
    assert not _complete("a", tmp_path / "nothing_here")


@pytest.mark.parametrize(
    ("member", "folder"),
    [
        ("fold_0/checkpoint_final", "fold_0__checkpoint_final"),
        ("fold_0\\checkpoint_final", "fold_0__checkpoint_final"),
        ("nnUNetTrainer__nnUNetPlans__2d/fold_all/x", "nnUNetTrainer__nnUNetPlans__2d__fold_all__x"),
        ('fold_0/checkpoint_final: flip "y x"?', "fold_0__checkpoint_final__flip__y_x__"),
    ],
)
def test_member_folder_name(member: str, folder: str) -> None:
    assert member_folder_name(member) == folder


def test_members_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    prediction = _prediction("a")
    prediction.member_segmentations["fold_0__checkpoint_final"] = prediction.segmentation
    with pytest.raises(ValueError, match="both give members/fold_0__checkpoint_final"):
        _write(prediction, tmp_path)
    assert _files(tmp_path) == ["cases.csv"]


def test_run_description(tmp_path: Path) -> None:
    dataset_json = {"labels": {"größe": 1, "background": 0}, "file_ending": ".nii.gz"}
    plans = {"plans_name": "nnUNetPlans", "configurations": {"2d": {"spacing": [1.0, 1.0]}}}
    write_run_description(
        tmp_path / "out",
        arguments={"i": Path("images"), "device": torch.device("cpu"), "step_size": np.float32(0.5)},
        members=[{"name": "fold_0/checkpoint_final", "sha256": "ab12"}],
        ensemble={"average": "logits", "members_averaged": 1},
        dataset_json=dataset_json,
        plans=plans,
    )

    assert _files(tmp_path / "out") == ["dataset.json", "plans.json", "predict_args.json"]
    description = json.loads((tmp_path / "out" / "predict_args.json").read_text())
    assert description["arguments"] == {"i": "images", "device": "cpu", "step_size": 0.5}
    assert description["members"] == [{"name": "fold_0/checkpoint_final", "sha256": "ab12"}]
    assert description["ensemble"] == {"average": "logits", "members_averaged": 1}
    assert set(description["versions"]) == {"nnunet_ext", "nnunetv2", "torch", "numpy", "python"}
    assert description["versions"]["nnunet_ext"] == nnunet_ext.__version__
    assert description["versions"]["numpy"] == np.__version__
    # as nnU-Net's predictor writes them
    for name, content in (("dataset.json", dataset_json), ("plans.json", plans)):
        save_json(content, str(tmp_path / name), sort_keys=False)
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / name).read_bytes()
