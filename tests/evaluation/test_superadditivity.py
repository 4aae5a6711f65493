"""An ensemble against its members: Dice by hand, which files count, and the line of `evaluate`."""

from __future__ import annotations

import json
from math import nan
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_ext.cli import main
from nnunet_ext.evaluation.case_metrics import Judgement, evaluate_case
from nnunet_ext.evaluation.label_maps import LabelMapPair
from nnunet_ext.evaluation.results import CaseEvaluation
from nnunet_ext.evaluation.superadditivity import (
    Superadditivity,
    member_dice,
    member_files,
    superadditivity,
    superadditivity_lines,
)
from nnunet_ext.options import MetricOptions


def case(dice: float, **members: float) -> CaseEvaluation:
    return CaseEvaluation("case", structures={}, figures={"mean_dice": dice}, stock={}, member_dice=members)


def test_the_ensemble_is_compared_with_the_mean_of_its_members_case_by_case():
    # means of the members: 0.7 and 0.6; the ensemble has more in the first case and less in the second
    found = superadditivity([case(0.9, a=0.8, b=0.6), case(0.5, a=0.9, b=0.3)])
    assert found == Superadditivity(
        members=2,
        dice=pytest.approx(0.7),
        mean_of_members=pytest.approx(0.65),
        best_member="a",
        best_member_dice=pytest.approx(0.85),
        cases=2,
        superadditive_cases=1,
    )
    [_, line] = superadditivity_lines(found)
    assert "Dice 0.700, mean of its 2 members 0.650 (+0.050), best member 0.850" in line
    assert line.endswith("at least their mean in 1 of 2 cases")


def test_an_ensemble_of_equal_members_is_superadditive():
    assert superadditivity([case(0.8, a=0.8, b=0.8)]).superadditive_cases == 1


def test_cases_without_a_dice_or_without_two_members_do_not_count():
    cases = [case(nan, a=0.5, b=0.5), case(0.9, a=0.7, b=nan), case(0.6, a=0.4, b=0.2)]
    found = superadditivity(cases)
    assert (found.cases, found.dice, found.mean_of_members) == (1, 0.6, pytest.approx(0.3))
    assert superadditivity(cases[:2]) is None
    assert superadditivity_lines(None) == []


def test_the_best_member_is_one_that_was_judged_on_every_case():
    """The one of b, 0.7, is of the easier case only; c has 0.9 and 0.3, mean 0.6."""
    found = superadditivity([case(0.8, b=0.7, c=0.9), case(0.4, a=0.1, c=0.3)])
    assert (found.members, found.best_member, found.best_member_dice) == (3, "c", pytest.approx(0.6))


def test_folds_with_members_of_their_own_have_no_best_member():
    found = superadditivity([case(0.95, first_a=0.95, first_b=0.93), case(0.55, second_a=0.5, second_b=0.4)])
    assert (found.members, found.best_member, found.best_member_dice) == (4, None, None)
    assert found.mean_of_members == pytest.approx((0.94 + 0.45) / 2)
    [_, line] = superadditivity_lines(found)
    assert "no best member, as none has a Dice in every case; at least their mean in 2 of 2 cases" in line


@pytest.mark.parametrize(("absent", "expected"), [("leave-out", 6 / 7), ("perfect", (6 / 7 + 1) / 2)])
def test_a_member_with_the_segmentation_of_the_ensemble_has_its_dice(absent, expected):
    """The second label is in neither truth nor prediction."""
    judgement = Judgement({"organ": (1,), "lesion": (2,)}, metrics=MetricOptions(absent=absent))
    ensemble = evaluate_case("case", LabelMapPair(TRUTH, PREDICTED, (1.0, 1.0, 1.0)), judgement)
    assert ensemble.figures["mean_dice"] == pytest.approx(expected)
    assert member_dice(PREDICTED, TRUTH, judgement) == ensemble.figures["mean_dice"]


def test_a_mixture_stands_for_its_classifiers(tmp_path):
    for name in ("fold_0__final", "fold_0__final+classifier0", "fold_0__final+classifier1", "fold_1__final", "empty"):
        (tmp_path / "members" / name).mkdir(parents=True)
        if name != "empty":
            (tmp_path / "members" / name / "heart.nii.gz").touch()
    found = member_files(tmp_path, "heart", ".nii.gz")
    assert list(found) == ["fold_0__final+classifier0", "fold_0__final+classifier1", "fold_1__final"]
    assert member_files(tmp_path / "nowhere", "heart", ".nii.gz") == {}


# --- the command ---

TRUTH = np.array([[[1, 1, 1, 1, 0, 0]]], np.uint8)
PREDICTED = np.array([[[1, 1, 1, 0, 0, 0]]], np.uint8)  # Dice 2 * 3 / (4 + 3) = 6/7
FIRST = np.array([[[1, 1, 0, 0, 0, 0]]], np.uint8)  # 2 * 2 / (4 + 2) = 2/3
SECOND = np.array([[[0, 0, 0, 0, 1, 0]]], np.uint8)  # 0


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Truth and prediction of one case, with the segmentations of two members."""
    write(tmp_path / "truth" / "heart.nii.gz", TRUTH)
    predicted = tmp_path / "predicted"
    write(predicted / "heart.nii.gz", PREDICTED)
    write(predicted / "members" / "first" / "heart.nii.gz", FIRST)
    write(predicted / "members" / "second" / "heart.nii.gz", SECOND)
    description = {"labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}}
    (predicted / "dataset.json").write_text(json.dumps(description))
    return tmp_path / "truth", predicted


def test_evaluate_prints_the_line_and_records_the_figures(folders, capsys):
    assert main(["evaluate", *map(str, folders), "-np", "1"]) == 0
    assert "Dice 0.857, mean of its 2 members 0.333 (+0.524), best member 0.667" in capsys.readouterr().out
    found = json.loads((folders[1] / "summary.json").read_text())["nnunet_ext"]["superadditivity"]
    assert found["best_member"] == "first"
    assert found["mean_of_members"] == pytest.approx(1 / 3)


def test_a_member_that_cannot_be_compared_is_named(folders, capsys):
    write(folders[1] / "members" / "first" / "heart.nii.gz", np.zeros((2, 2, 2), np.uint8))
    assert main(["evaluate", *map(str, folders), "-np", "1"]) == 1
    printed = capsys.readouterr()
    assert "A member's segmentation must have the shape of the truth" in printed.out + printed.err
