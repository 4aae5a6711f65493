from __future__ import annotations

import numpy as np
import pytest

from nnunet_ext.evaluation.results import CaseEvaluation, FolderEvaluation
from nnunet_ext.report.data import gather
from nnunet_ext.report.tables import (
    CALIBRATION_METRICS,
    CASE_METRICS,
    STRUCTURE_METRICS,
    case_table,
    detection_table,
    map_table,
    structure_table,
    summary_table,
)

NAN = float("nan")


def evaluation(
    *figures: dict[str, float], names: tuple[str, ...] = ("heart_a", "heart_b", "heart_c")
) -> FolderEvaluation:
    cases = [
        CaseEvaluation(name, {"RV": {"dice": found.get("mean_dice", NAN)}}, found, {})
        for name, found in zip(names, figures, strict=False)
    ]
    return FolderEvaluation({"RV": (1,)}, cases)


def test_all_cases_with_what_is_known_of_them(prediction):
    table = case_table(gather(prediction))
    assert table.header == (
        "case", "pairwise Dice", "mean entropy", "foreground entropy", "mutual information", "RV (ml)"
    )  # fmt: skip
    assert [cell.text for cell in table.rows[0]] == ["heart_b", "0.520", "0.0310", "0.123", "0", "36.1 ± 17 %"]
    assert table.rows[0][1].sort == "0.52"


def test_a_class_has_mean_median_and_worst_over_the_cases():
    table = structure_table(evaluation({"mean_dice": 0.9}, {"mean_dice": 0.8}, {"mean_dice": 0.1}, {"mean_dice": NAN},
                                       names=("a", "b", "c", "d")))  # fmt: skip
    assert table.header == ("class", "Dice")
    (name, dice) = table.rows[0]
    assert (name.text, dice.text) == ("RV", "0.600")
    assert dice.detail == "median 0.800\nworst 0.100\n3 of 4 cases"


def test_the_worst_error_of_volumes_is_the_one_furthest_from_zero():
    assert STRUCTURE_METRICS["volume_error_ml"].worst(np.array([3.0, -5.0, 4.0])) == -5.0
    assert STRUCTURE_METRICS["hd95_mm"].worst(np.array([3.0, 5.0])) == 5.0
    assert STRUCTURE_METRICS["dice"].worst(np.array([0.3, 0.5])) == 0.3


def test_figures_that_no_case_has_are_left_out():
    table = summary_table("", CASE_METRICS, evaluation({"mean_dice": 0.9, "end_slice_dice_paper": NAN}))
    assert table is not None
    assert [row[0].text for row in table.rows] == ["mean Dice"]
    assert summary_table("", CALIBRATION_METRICS, evaluation({"mean_dice": 0.9})) is None


def test_maps_of_uncertainty_have_a_row_each():
    table = map_table(evaluation({"entropy_error_auroc": 0.9, "variance_error_auroc": 0.7, "entropy_qu_brats": NAN}))
    assert table is not None
    assert table.header == ("map", "error AUROC")
    assert [(row[0].text, row[1].text) for row in table.rows] == [("entropy", "0.900"), ("variance", "0.700")]
    assert map_table(evaluation({"mean_dice": 0.9})) is None


def test_failure_detection_counts_uncertainties_with_a_minus(prediction):
    # pairwise Dice: heart_a 0.91, heart_b 0.52, heart_c 0.78, in the order of the Dice; the entropies are all equal
    data = gather(prediction, evaluation=evaluation({"mean_dice": 0.9}, {"mean_dice": 0.6}, {"mean_dice": 0.8}))
    table = detection_table(data)
    assert table is not None
    figures = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    # risks 0.1, 0.2, 0.4 by confidence: selective risks 0.1, 0.15, 0.7/3; the best order, so E-AURC is 0
    aurc = (0.1 + (0.1 + 0.15) / 2 + (0.15 + 0.7 / 3) / 2) / 3
    assert figures["pairwise Dice"][:2] == [f"{aurc:.4f}", "0.0000"]
    assert figures["pairwise Dice"][3:] == ["1.000", "0.000", "−1.000"]
    assert figures["mean entropy"][0] == f"{0.7 / 3:.4f}"  # a constant confidence has the mean risk
    assert figures["mean entropy"][-1] == "–"


@pytest.mark.parametrize("figures", [[], [{}]])
def test_without_dice_there_is_no_failure_detection(prediction, figures):
    assert detection_table(gather(prediction, evaluation=evaluation(*figures))) is None
