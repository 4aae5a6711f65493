"""`nnunet_ext evaluate`, from flags to files and exit status, on folders of small NIfTI files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from nnunet_ext.cli import main
from nnunet_ext.commands.evaluate import SUMMARY, comparisons, dataset_of
from nnunet_ext.evaluation.results import CaseEvaluation, FolderEvaluation
from nnunet_ext.options import DatasetFiles

SHAPE = (4, 6, 10)  # z, y, x
LABELS = {"background": 0, "organ": 1}
CASES = ("p1_ed", "p1_es", "p2_ed", "p2_es")
SHIFTS = (0, 1, 2, 3)  # of the prediction along x, by case: 4, 3, 2 and 1 columns of 4 are right


def cube(shift: int = 0) -> np.ndarray:
    values = np.zeros(SHAPE, np.uint8)
    values[1:3, 2:4, 2 + shift : 6 + shift] = 1
    return values


def write(path: Path, values: np.ndarray) -> None:
    """(z, y, x) as NIfTI, which stores (x, y, z)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([1.0, 1.0, 4.0, 1.0])), path)


def describe(folder: Path, **changes: Any) -> None:
    """Writes the files by which a folder of predictions is judged."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"labels": LABELS, "file_ending": ".nii.gz", **changes}))
    (folder / "plans.json").write_text(json.dumps({"label_manager": "LabelManager"}))


def predict(folder: Path, shifts: tuple[int, ...] = SHIFTS) -> Path:
    for case, shift in zip(CASES, shifts, strict=True):
        write(folder / f"{case}.nii.gz", cube(shift))
    return folder


@pytest.fixture
def truths(tmp_path: Path) -> Path:
    return predict(tmp_path / "labels", (0, 0, 0, 0))


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Dice 1, 0.75, 0.5 and 0.25, with a table in which the pairwise Dice tells it."""
    folder = predict(tmp_path / "results")
    describe(folder)
    rows = [f"{case},{1 - shift / 4},[]" for case, shift in zip(CASES, SHIFTS, strict=True)]
    (folder / "cases.csv").write_text("\n".join(["case,pairwise_dice,flags", *rows]) + "\n")
    return folder


@pytest.fixture
def evaluate(truths: Path, predictions: Path) -> Callable[..., int]:
    """Runs the command; returns its exit status."""

    def run(*flags: str | Path, folder: Path = predictions) -> int:
        return main(["evaluate", str(truths), str(folder), "-np", "1", "--disable_progress_bar", *map(str, flags)])

    return run


def own_summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())["nnunet_ext"]


# --- files ---


def test_tables_are_written_beside_the_predictions(evaluate, predictions, capsys):
    assert evaluate() == 0
    with (predictions / "metrics.csv").open(newline="") as file:
        assert [(row["case"], row["dice"]) for row in csv.DictReader(file)] == list(
            zip(CASES, ("1", "0.75", "0.5", "0.25"), strict=True)
        )
    assert (
        (predictions / "case_metrics.csv")
        .read_text()
        .startswith("case,mean_dice,absent_structures,end_slice_dice_paper,")
    )
    summary = json.loads((predictions / "summary.json").read_text())
    assert summary["foreground_mean"]["Dice"] == pytest.approx(0.625)
    own = summary["nnunet_ext"]
    assert set(own) == set(SUMMARY) - {"folds", "over_folds", "comparison"}  # which others have
    assert own["settings"] == {
        "nsd_tolerance_mm": 1.0, "absent": "leave-out", "end_stack": "volume", "end_variant": "paper",
        "end_threshold": 0.8, "failure_dice": 0.75, "map_labels": None,
    }  # fmt: skip
    # 0.5 and 0.25 fail, and the pairwise Dice tells
    assert own["failure_detection"]["pairwise_dice"]["failure_auroc"] == 1
    assert [entry["case"] for entry in own["error_analysis"]["worst_cases"]] == list(reversed(CASES))
    assert "comparison" not in own
    captured = capsys.readouterr()
    assert captured.out.startswith("4 cases, mean Dice 0.625 ± 0.323\n")
    assert captured.out.endswith(f"\nTables in {predictions}\n")
    assert captured.err == ""


def test_tables_go_elsewhere_if_asked_to(evaluate, predictions, tmp_path):
    before = sorted(predictions.iterdir())
    assert evaluate("-o", tmp_path / "new" / "tables", "--worst", "1", "--failure-dice", "0.6") == 0
    assert sorted(predictions.iterdir()) == before
    assert {path.name for path in (tmp_path / "new" / "tables").iterdir()} == {
        "metrics.csv", "case_metrics.csv", "summary.json"
    }  # fmt: skip
    own = own_summary(tmp_path / "new" / "tables")
    assert own["settings"]["failure_dice"] == 0.6
    assert own["error_analysis"]["worst_cases"] == [{"case": "p2_es", "mean_dice": pytest.approx(0.25)}]


def test_a_second_evaluation_finds_the_same(evaluate, predictions):
    """Its own tables are no predictions."""
    assert evaluate() == 0
    first = (predictions / "summary.json").read_text()
    assert evaluate() == 0
    assert (predictions / "summary.json").read_text() == first


def test_what_verdicts_and_intervals_were_worth_is_told_and_recorded(evaluate, predictions, capsys):
    """Dice 1, 0.75, 0.5 and 0.25: two failures, of which the first was accepted. Only the first interval holds."""
    assert evaluate() == 0
    assert own_summary(predictions)["verdicts"] is None
    assert "true Dice" not in capsys.readouterr().out
    words = ("accept", "review", "accept", "reject")
    rows = [f"{case},0.9,0.85,1,{word},[]" for case, word in zip(CASES, words, strict=True)]
    header = "case,predicted_dice,predicted_dice_low,predicted_dice_high,verdict,flags"
    (predictions / "cases.csv").write_text("\n".join([header, *rows]) + "\n")
    assert evaluate() == 0
    found = own_summary(predictions)["verdicts"]
    assert (found["inside"], found["intervals"], found["missed"]) == (1, 4, ["p2_ed"])
    printed = capsys.readouterr().out
    assert "1 of 4 cases (25%)" in printed
    assert "caught 1 (0 review, 1 reject) and missed 1: p2_ed." in printed


def test_a_folder_of_stock_nnunet_has_no_table_of_cases(evaluate, predictions):
    (predictions / "cases.csv").unlink()
    assert evaluate() == 0
    assert own_summary(predictions)["failure_detection"] == {}


def test_errors_are_told_by_the_columns_of_a_table(evaluate, predictions, tmp_path, capsys):
    (tmp_path / "groups.csv").write_text("case,vendor\np1_ed,A\np1_es,A\np2_ed,B\n")
    assert evaluate("--groups", tmp_path / "groups.csv") == 0
    groups = own_summary(predictions)["error_analysis"]["groups"]
    assert {name: group["mean_dice"] for name, group in groups.items() if name.startswith("vendor")} == pytest.approx(
        {"vendor: A": 0.875, "vendor: B": 0.5, "vendor: unknown": 0.25}
    )
    assert "vendor: A" in capsys.readouterr().out


# --- problems ---


@pytest.mark.parametrize("compared", [False, True])
def test_a_folder_of_ours_that_contradicts_itself_is_refused(evaluate, predictions, tmp_path, compared, capsys):
    """Also the one that is compared with; without its record it would be taken as it is."""
    ours = predict(tmp_path / "ours")
    describe(ours)
    (ours / "cases.csv").write_text("case,members\np1_ed,2\n")
    (ours / "predict_args.json").write_text(json.dumps({"members": []}))
    assert (evaluate("--compare", ours) if compared else evaluate(folder=ours)) == 1
    assert "no row in cases.csv for the segmentation of p1_es, p2_ed, p2_es" in capsys.readouterr().err
    assert not list(tmp_path.rglob("summary.json"))


def test_problems_are_named_and_the_exit_status_says_so(evaluate, predictions, capsys):
    (predictions / "p1_es.nii.gz").unlink()
    (predictions / "p2_es.nii.gz").write_bytes(b"no image")
    assert evaluate() == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("2 cases, mean Dice 0.750 ± 0.354\n")
    lines = captured.err.splitlines()
    assert [line.split(":")[0].strip() for line in lines if line.startswith("  p")] == ["p1_es", "p2_es"]
    assert "p1_es: There is no prediction of this case." in captured.err
    assert "p2_es.nii.gz cannot be read as a label map" in captured.err
    assert set(own_summary(predictions)["problems"]) == {"p1_es", "p2_es"}


def test_missing_cases_can_be_allowed(evaluate, predictions):
    (predictions / "p1_es.nii.gz").unlink()
    assert evaluate("--chill") == 0
    assert own_summary(predictions)["cases"] == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--nsd-tolerance", "0"], "tolerance of the surface Dice must be above 0 mm"),
        (["--worst", "-1"], "worst cases must be at least 0"),
        (["--groups", "no_such_file.csv"], "no_such_file.csv"),
        (["-djfile", "missing.json"], "missing.json does not exist. Give it with -djfile"),
        (["-pfile", "missing.json"], "missing.json does not exist"),
        (["--end-threshold", "80"], "must be a Dice in [0, 1]; found 80"),
        (["--compare", "no_such_folder"], "no_such_folder/dataset.json does not exist"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, message, evaluate, predictions, capsys):
    assert evaluate(*flags) == 1
    error = capsys.readouterr().err
    assert error.startswith("nnunet_ext evaluate: ")
    assert message in error
    assert not (predictions / "summary.json").exists()


# --- the dataset's description ---


def test_a_folds_validation_is_judged_by_its_models_files(evaluate, truths, tmp_path):
    """MODEL/fold_0/validation holds none of its own."""
    describe(tmp_path / "model")
    validation = predict(tmp_path / "model" / "fold_0" / "validation")
    assert evaluate(folder=validation) == 0
    assert own_summary(validation)["structures"]["organ"]["dice"]["mean"] == pytest.approx(0.625)


def test_a_folders_own_files_come_first_and_chosen_ones_before_them(truths, predictions, tmp_path):
    describe(tmp_path / "model", labels={"background": 0, "of the model": 1})
    own = tmp_path / "model" / "fold_0" / "validation"
    describe(own, labels={"background": 0, "its own": 1})
    assert list(dataset_of([own], truths, DatasetFiles()).structures) == ["its own"]
    chosen = DatasetFiles(dataset=tmp_path / "model" / "dataset.json")
    assert list(dataset_of([own], truths, chosen).structures) == ["of the model"]


def test_without_a_description_the_flag_is_named(evaluate, predictions, capsys):
    (predictions / "dataset.json").unlink()
    assert evaluate() == 1
    assert "needs the dataset.json of the predictions; " in capsys.readouterr().err


@pytest.mark.parametrize("with_plans", [True, False])
def test_the_end_coefficient_does_not_depend_on_how_the_stack_lies(with_plans, tmp_path):
    """Ten slices of 8 mm, stacked along x; organ in the slices 0 to 8, predicted in 1 to 9. Its ends: 0, 1, 1, 0.

    With the plans of this anatomy, and by the spacing without. The ends along z would all be equal to each other.
    """
    truth, prediction = (np.zeros((4, 6, 10), np.uint8) for _ in range(2))
    truth[1:3, 2:4, :9], prediction[1:3, 2:4, 1:] = 1, 1
    for folder, values in (("GT", truth), ("PRED", prediction)):
        (tmp_path / folder).mkdir()
        affine = np.diag([8.0, 1.0, 1.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), affine), tmp_path / folder / "heart.nii.gz")
    describe(tmp_path / "PRED")
    plans = tmp_path / "PRED" / "plans.json"
    plans.write_text(json.dumps({"label_manager": "LabelManager", "transpose_forward": [2, 0, 1]}))
    if not with_plans:
        plans.unlink()
    arguments = ["-np", "1", "--disable_progress_bar", "--end-slices", "strict", "--end-threshold", "0.49"]
    assert main(["evaluate", str(tmp_path / "GT"), str(tmp_path / "PRED"), *arguments]) == 0
    own = own_summary(tmp_path / "PRED")
    assert own["case_figures"]["end_slice_dice_strict"]["mean"] == pytest.approx(0.5)
    assert own["end_coefficient"]["strict"] == 1


@pytest.mark.parametrize(("rule", "mean_mm"), [("leave-out", 2.0), ("perfect", 1.0)])
def test_what_is_absent_from_a_case_follows_one_rule(rule, mean_mm, evaluate, truths, predictions):
    """Two cases with nothing in truth and prediction; in the two others the organ is 2 mm too far to the side."""
    for case in CASES:
        filled = case.endswith("es")
        write(truths / f"{case}.nii.gz", cube(0) * filled)
        write(predictions / f"{case}.nii.gz", cube(2) * filled)
    assert evaluate("--absent", rule) == 0
    own = own_summary(predictions)
    assert own["absent"] == {"organ": 2}
    organ = own["structures"]["organ"]
    assert organ["hd95_mm"]["mean"] == pytest.approx(mean_mm)
    assert organ["dice"]["mean"] == pytest.approx(0.5 if rule == "leave-out" else 0.75)
    assert {organ[name]["cases"] for name in ("dice", "hd95_mm", "hd_mm", "nsd", "volume_error_ml")} == {
        2 if rule == "leave-out" else 4
    }


def test_a_folder_at_the_top_of_the_disk_has_no_model_above_it(truths):
    """As in containers, where data lies in /predictions."""
    with pytest.raises(FileNotFoundError, match=r"dataset\.json does not exist"):
        dataset_of([Path(truths.anchor) / "no_such_folder"], truths, DatasetFiles())


# --- comparisons ---


def test_a_second_folder_is_compared_case_by_case(evaluate, predictions, tmp_path, capsys):
    """All right there, so that this one is worse by 0, 0.25, 0.5 and 0.75."""
    other = predict(tmp_path / "other", (0, 0, 0, 0))
    describe(other)
    assert evaluate("--compare", other, "--patients", "(p[0-9])_") == 0
    comparison = own_summary(predictions)["comparison"]
    assert comparison["other"] == str(other)
    found = comparison["first_minus_other"]["mean_dice"]
    assert found["mean_difference"] == pytest.approx(-0.375)
    assert (found["cases"], found["groups"], found["left_out"]) == (4, 2, 0)
    assert found["low"] == pytest.approx(-0.625)  # two patients: -0.125 and -0.625
    assert found["high"] == pytest.approx(-0.125)
    assert set(comparison["first_minus_other"]) == {
        "mean_dice", "end_slice_dice_paper", "organ dice", "organ hd95_mm", "organ nsd"
    }  # fmt: skip
    assert f"difference to {other}" in capsys.readouterr().out
    assert not (other / "summary.json").exists()


def test_problems_of_the_second_folder_are_named_with_it(evaluate, tmp_path, capsys):
    other = predict(tmp_path / "other")
    describe(other)
    (other / "p1_ed.nii.gz").unlink()
    assert evaluate("--compare", other) == 1
    assert f"  {other}: p1_ed: There is no prediction of this case." in capsys.readouterr().err


def test_a_pattern_that_gives_a_case_no_patient_is_refused(evaluate, tmp_path, capsys):
    other = predict(tmp_path / "other")
    describe(other)
    assert evaluate("--compare", other, "--patients", "(q[0-9])_") == 1
    assert "p1_ed" in capsys.readouterr().err


def evaluation_of(structures: dict[str, tuple[int, ...]], *cases: str) -> FolderEvaluation:
    figures = {name: {"dice": 0.5, "hd95_mm": 1.0, "nsd": 1.0} for name in structures}
    return FolderEvaluation(structures, [CaseEvaluation(case, figures, {"mean_dice": 0.5}, {}) for case in cases])


def test_only_structures_of_the_same_labels_are_compared():
    """A model of regions against one of classes: only the core is the same thing in both."""
    regions = evaluation_of({"whole": (1, 2), "core": (2,), "rim": (1,)}, "a", "b")
    classes = evaluation_of({"rim": (3,), "core": (2,)}, "a", "b")
    assert list(comparisons(regions, classes, None)) == ["mean_dice", "core dice", "core hd95_mm", "core nsd"]


def test_folders_without_a_common_case_cannot_be_compared():
    structures = {"organ": (1,)}
    with pytest.raises(ValueError, match="compared on the cases that both have; found none"):
        comparisons(evaluation_of(structures, "a"), evaluation_of(structures, "b"), None)
