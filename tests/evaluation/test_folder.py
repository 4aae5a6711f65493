"""Folders of small NIfTI files, each with one thing wrong: it is named, and the other cases are evaluated."""

from __future__ import annotations

import dataclasses
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO

from nnunet_ext.evaluation.folder import Dataset, evaluate_folder, open_dataset, worker_pool
from nnunet_ext.evaluation.results import FolderEvaluation
from nnunet_ext.options import JudgeOptions, MetricOptions

SHAPE = (3, 6, 8)  # z, y, x
SPACING_MM = (4.0, 1.0, 2.0)
LABELS = {"background": 0, "organ": 1, "lesion": 2}
PLANS = {"label_manager": "LabelManager"}
CASES = ("a", "b", "c")


def drawn(shift: int = 0) -> np.ndarray:
    """An organ of 2·2·3 voxels and a lesion of one."""
    values = np.zeros(SHAPE, np.uint8)
    values[:2, 2:4, 2 + shift : 5 + shift] = 1
    values[2, 5, 7] = 2
    return values


def write(path: Path, values: np.ndarray, *, spacing: Sequence[float] = SPACING_MM) -> None:
    """(z, y, x) as NIfTI, which stores (x, y, z)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([*spacing[::-1], 1.0])), path)


def dataset_of(truths: Path, *, plans: dict[str, Any] = PLANS, **changes: Any) -> Dataset:
    description = {
        "labels": LABELS,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIO",
        **changes,
    }
    return open_dataset(description, plans, sorted(truths.iterdir()))


@pytest.fixture
def truths(tmp_path: Path) -> Path:
    for case in CASES:
        write(tmp_path / "truths" / f"{case}.nii.gz", drawn())
    return tmp_path / "truths"


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """a and c are right, b is one voxel to the side. All have probabilities and a map."""
    folder = tmp_path / "predictions"
    for case, shift in zip(CASES, (0, 1, 0), strict=True):
        labels = drawn(shift)
        write(folder / f"{case}.nii.gz", labels)
        one_hot = np.stack([labels == label for label in range(3)])
        np.savez_compressed(folder / f"{case}.npz", probabilities=(0.1 + 0.7 * one_hot).astype(np.float32))
        write(folder / "maps" / "entropy" / f"{case}.nii.gz", np.full(SHAPE, 0.25, np.float32))
    return folder


@pytest.fixture
def evaluate(truths: Path, predictions: Path) -> Callable[..., FolderEvaluation]:
    return lambda **options: evaluate_folder(truths, predictions, dataset_of(truths), JudgeOptions(**options))


def names(evaluation: FolderEvaluation) -> list[str]:
    return [case.case for case in evaluation.cases]


# --- what is right ---


def test_every_case_is_evaluated_with_all_its_files(evaluate):
    evaluation = evaluate()
    assert evaluation.problems == {}
    assert names(evaluation) == ["a", "b", "c"]
    # b: 2·2·2 voxels of 12 in common, 2·8/24
    assert [case.structures["organ"]["dice"] for case in evaluation.cases] == pytest.approx([1, 2 / 3, 1])
    assert evaluation.cases[0].structures["organ"]["volume_ml"] == pytest.approx(12 * 0.008)
    assert evaluation.column("mean_dice") == pytest.approx([1, 5 / 6, 1])
    # all probabilities say 0.8; of the box of 3·4·6 voxels all are right in a, and 68 in b, where 4 go and 4 come
    assert evaluation.column("ece") == pytest.approx([0.2, abs(64 / 72 - 0.8), 0.2], abs=1e-6)
    assert evaluation.reliability.counts.sum() == 3 * 72
    assert evaluation.column("entropy_error_auroc")[1] == 0.5  # a map that is the same everywhere
    assert np.isnan(evaluation.column("no such figure")).all()


def test_a_case_without_probabilities_and_maps_is_evaluated_without_them(evaluate, predictions):
    (predictions / "b.npz").unlink()
    (predictions / "maps" / "entropy" / "c.nii.gz").unlink()
    evaluation = evaluate()
    assert names(evaluation) == ["a", "b", "c"]
    assert np.isnan(evaluation.column("ece")).tolist() == [False, True, False]
    assert "entropy_error_auroc" not in evaluation.cases[2].figures


def test_the_entry_for_summary_json_names_the_files(evaluate, truths, predictions):
    entry = evaluate().cases[1].stock
    assert entry["reference_file"] == str(truths / "b.nii.gz")
    assert entry["prediction_file"] == str(predictions / "b.nii.gz")
    assert {key: values["TP"] for key, values in entry["metrics"].items()} == {1: 8, 2: 1}


def test_several_processes_find_what_one_does(evaluate, predictions):
    """Nothing is predicted and there are no maps, so that the processes need not load what measures those."""
    (predictions / "b.nii.gz").write_bytes(b"no image")
    for case in ("a", "c"):
        write(predictions / f"{case}.nii.gz", np.zeros(SHAPE, np.uint8))
        (predictions / "maps" / "entropy" / f"{case}.nii.gz").unlink()
    one, two = evaluate(processes=1), evaluate(processes=2)
    assert two.problems == one.problems
    assert list(two.problems) == ["b"]
    for first, second in zip(one.cases, two.cases, strict=True):
        for part in ("case", "structures", "figures", "stock"):
            np.testing.assert_equal(getattr(second, part), getattr(first, part))
        np.testing.assert_array_equal(second.reliability.counts, first.reliability.counts)


# --- what is wrong ---


def test_a_case_that_only_one_folder_has(evaluate, truths, predictions):
    (predictions / "a.nii.gz").unlink()
    (truths / "c.nii.gz").unlink()
    evaluation = evaluate()
    assert names(evaluation) == ["b"]
    assert list(evaluation.problems) == ["a", "c"]
    assert evaluation.problems["a"].startswith("There is no prediction of this case.")
    assert evaluation.problems["c"].startswith("There is a prediction but no ground truth")
    allowed = evaluate(allow_missing=True)
    assert (names(allowed), allowed.problems) == (["b"], {})


def damage_label_map(folder: Path) -> None:
    content = (folder / "b.nii.gz").read_bytes()
    (folder / "b.nii.gz").write_bytes(content[: len(content) // 2])


def wrong_label(folder: Path) -> None:
    values = drawn()
    values[0, 0, 0] = 5
    write(folder / "b.nii.gz", values)


def bad_map(value: float) -> Callable[[Path], None]:
    values = np.full(SHAPE, 0.25, np.float32)
    values[1, 1, 1] = value
    return lambda folder: write(folder / "maps" / "entropy" / "b.nii.gz", values)


def bad_probabilities(value: float) -> Callable[[Path], None]:
    return lambda folder: np.savez(folder / "b.npz", probabilities=np.full((3, *SHAPE), value, np.float32))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damage_label_map, "b.nii.gz cannot be read as a label map"),
        (wrong_label, "the prediction b.nii.gz also contains 5"),
        (lambda folder: write(folder / "b.nii.gz", drawn(), spacing=(5.0, 1.0, 2.0)), "must have the same geometry"),
        (lambda folder: write(folder / "b.nii.gz", drawn()[:2]), "must have the same shape"),
        (lambda folder: (folder / "b.npz").write_bytes(b"PK no zip"), "b.npz cannot be read as nnU-Net's"),
        (lambda folder: np.savez(folder / "b.npz", softmax=np.zeros(1)), "b.npz cannot be read as nnU-Net's"),
        (
            lambda folder: np.savez(folder / "b.npz", probabilities=np.zeros((2, *SHAPE), np.float32)),
            "must have the shape (3, 3, 6, 8), outputs first;",
        ),
        (bad_probabilities(np.nan), "Probabilities must be in [0, 1]; "),
        (bad_probabilities(-4.0), "Are they logits?"),
        (lambda folder: (folder / "maps/entropy/b.nii.gz").write_bytes(b"no image"), "cannot be read as a map"),
        (lambda folder: write(folder / "maps/entropy/b.nii.gz", np.zeros((2, 6, 8))), "shape of the segmentation"),
        (bad_map(np.nan), "A map must be in [0, 1]; "),
        (bad_map(1.5), "has 0.25 to 1.5."),
    ],
)  # fmt: skip
def test_a_bad_case_is_named_and_the_others_are_evaluated(spoil, message, evaluate, predictions):
    spoil(predictions)
    evaluation = evaluate()
    assert names(evaluation) == ["a", "c"]
    assert list(evaluation.problems) == ["b"]
    assert message in evaluation.problems["b"]


def test_if_every_case_is_bad_there_is_none(evaluate, predictions):
    for case in CASES:
        (predictions / f"{case}.nii.gz").write_bytes(b"no image")
    evaluation = evaluate()
    assert evaluation.cases == []
    assert list(evaluation.problems) == ["a", "b", "c"]
    assert evaluation.reliability is None


def test_a_reader_of_somebody_elses_needs_no_ending_for_maps_that_are_not_there(evaluate, truths, predictions):
    """nnU-Net takes reader classes of one's own, for which no format of maps is known."""
    shutil.rmtree(predictions / "maps")
    own = type("OwnIO", (NibabelIO,), {})()
    evaluation = evaluate_folder(truths, predictions, dataclasses.replace(dataset_of(truths), reader=own))
    assert names(evaluation) == list(CASES)


@pytest.mark.parametrize("folder", ["no such folder", "empty"])
def test_a_folder_without_label_maps_is_refused(folder, truths, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"CASE\.nii\.gz; .*{folder} (contains none|does not exist)"):
        evaluate_folder(truths, tmp_path / folder, dataset_of(truths))


def test_folders_without_a_common_name_are_refused(evaluate, predictions):
    for file in predictions.glob("*.nii.gz"):
        file.rename(file.with_name(f"other_{file.name}"))
    with pytest.raises(ValueError, match="no name is in both folders"):
        evaluate()


def test_side_files_of_macos_are_no_cases(evaluate, truths, predictions):
    for folder in (truths, predictions):
        (folder / "._b.nii.gz").write_bytes(bytes.fromhex("00051607"))
    assert (names(evaluate()), evaluate().problems) == (["a", "b", "c"], {})


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "plans", [PLANS, {**PLANS, "image_reader_writer": "NibabelIO"}], ids=["by example", "by plans"]
)
def test_a_truth_that_cannot_be_read_leaves_the_others_judged_even_if_it_is_the_first(
    case, plans, truths, predictions
):
    (truths / f"{case}.nii.gz").write_bytes(b"")
    evaluation = evaluate_folder(truths, predictions, dataset_of(truths, plans=plans))
    assert names(evaluation) == [name for name in CASES if name != case]
    assert "cannot be read as a label map" in evaluation.problems[case]


def test_the_plans_name_the_reader(truths):
    plans = {**PLANS, "image_reader_writer": "SimpleITKIO"}
    assert type(dataset_of(truths, plans=plans).reader).__name__ == "SimpleITKIO"


def test_what_a_killed_run_left_is_no_case(evaluate, predictions):
    write(predictions / ".partial-d.nii.gz", drawn())
    assert evaluate().problems == {}


@pytest.mark.parametrize("tolerance_mm", [0, -1, float("nan")])
def test_a_tolerance_must_be_positive(tolerance_mm):
    with pytest.raises(ValueError, match="tolerance of the surface Dice must be above 0 mm; found"):
        MetricOptions(nsd_tolerance_mm=tolerance_mm)


# --- datasets ---


def test_classes_are_in_the_order_of_the_outputs_whatever_the_order_of_their_names(truths):
    dataset = dataset_of(truths, labels={"b": 2, "ignore": 4, "a": 3, "c": 1, "background": 0})
    assert list(dataset.structures.items()) == [("c", (1,)), ("b", (2,)), ("a", (3,))]
    assert dataset.stock_keys == {"c": 1, "b": 2, "a": 3}
    assert dataset.labels == {0, 1, 2, 3}
    assert (dataset.regions, dataset.ignore_label) == (False, 4)


def test_a_region_of_one_label_has_the_key_that_nnunet_gives_it(truths):
    """nnU-Net makes a tuple of a list, and leaves a number as it is."""
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2], "tip": 3}
    dataset = dataset_of(truths, labels=labels, regions_class_order=[1, 2, 3])
    assert dataset.structures == {"whole": (1, 2, 3), "core": (2,), "tip": (3,)}
    assert dataset.stock_keys == {"whole": (1, 2, 3), "core": (2,), "tip": 3}
    assert dataset.regions


def test_the_plans_say_along_which_axis_slices_are_stacked(truths):
    assert dataset_of(truths, plans={**PLANS, "transpose_forward": [2, 0, 1]}).stack_axis == 2
    assert dataset_of(truths).stack_axis is None


def test_plans_may_be_missing(truths, capsys):
    assert list(dataset_of(truths, plans={}).structures) == ["organ", "lesion"]
    assert capsys.readouterr().out == ""


def test_worker_processes_leave_ctrl_c_to_the_command():
    with worker_pool(1) as pool:
        assert pool.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN
