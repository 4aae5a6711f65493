"""What a person sees of an evaluation."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from nnunet_ext.evaluation.comparison import PairedComparison
from nnunet_ext.evaluation.folds import fold_summary
from nnunet_ext.evaluation.results import CaseEvaluation, FolderEvaluation
from nnunet_ext.evaluation.summary import own_summary
from nnunet_ext.evaluation.text import (
    aligned,
    comparison_lines,
    end_lines,
    evaluation_lines,
    fold_lines,
    percent,
    shown,
    signed,
)

NAN = math.nan


def case(name: str, dice: float, **figures: float) -> CaseEvaluation:
    structures = {
        "LV": {"dice": dice, "hd95_mm": 4.0, "hd_mm": 12.5, "nsd": 0.7, "volume_error_ml": -1.934, "lesion_f1": 1.0},
        "scar": dict.fromkeys(("dice", "hd95_mm", "hd_mm", "nsd", "volume_error_ml", "lesion_f1"), NAN),
    }
    return CaseEvaluation(name, structures, {"mean_dice": dice, **figures}, {})


def error_group(dice: float, *shares: float) -> dict[str, Any]:
    return {
        "n": 2,
        "mean_dice": dice,
        **dict(zip(("missed_share", "spurious_share", "boundary_share"), shares, strict=True)),
    }


STRUCTURES = {"LV": (1,), "scar": (2,)}
SETTINGS = {"end_variant": "paper", "end_threshold": 0.8, "end_stack": "volume"}


def own(*cases: CaseEvaluation, **parts: Any) -> dict[str, Any]:
    """Our part of summary.json."""
    return {
        **own_summary(FolderEvaluation(STRUCTURES, list(cases))),
        "settings": SETTINGS,
        "failure_detection": {},
        "wrong_slices": {},
        "error_analysis": {"groups": {}, "worst_cases": []},
        **parts,
    }


def test_a_folder_of_stock_predictions():
    """No probabilities, maps or confidences: means of the structures and of the errors; a dash where none is."""
    errors = {
        "groups": {"LV": error_group(0.85, 0.5, 0.25, 0.25), "scar": error_group(NAN, NAN, NAN, NAN)},
        "worst_cases": [{"case": "p2", "mean_dice": 0.8}, {"case": "p1", "mean_dice": 0.9}],
    }
    counted = {"pooled_dice": {"LV": 0.875, "scar": NAN}, "absent": {"LV": 0, "scar": 2}}
    found = own(case("p1", 0.9), case("p2", 0.8), error_analysis=errors, **counted)
    assert [" ".join(line.split()) for line in evaluation_lines(found)] == [
        "2 cases, mean Dice 0.850 ± 0.071",  # √0.005
        "",
        "structure Dice HD95 mm HD mm NSD volume error ml lesion F1 pooled Dice absent",
        "LV 0.850 ± 0.071 4.00 ± 0.00 12.50 ± 0.00 0.700 ± 0.000 -1.93 ± 0.00 1.000 ± 0.000 0.875 0",
        "scar - - - - - - - 2",
        "",
        "errors by group n Dice missed spurious boundary",
        "LV 2 0.850 50% 25% 25%",
        "scar 2 - - - -",
        "",
        "Worst: p2 (0.800), p1 (0.900)",
        "",
        "A dash: no case defines the figure, as when neither truth nor prediction has the structure.",
    ]


def test_what_predictions_with_uncertainty_add():
    figures = {
        "end_slice_dice_paper": 0.9, "end_slice_dice_strict": 0.5,
        "ece": 0.01234, "class_wise_ece": 0.02, "ace": 0.3, "brier": 0.1, "nll": NAN,
        "entropy_error_auroc": 0.95, "entropy_error_ap": 0.5, "entropy_qu_brats": 0.9, "entropy_qu_brats_gain": -0.01,
    }  # fmt: skip
    detection = {
        "mean_entropy": {
            "aurc": 0.2, "e_aurc": 0.1, "augrc": 0.05, "failure_auroc": NAN, "fpr_at_95_tpr": NAN, "spearman": -0.75
        }
    }  # fmt: skip
    slices = {"entropy": {"recall": 0.625}}
    lines = evaluation_lines(own(case("p1", 0.9, **figures), failure_detection=detection, wrong_slices=slices))
    assert lines[5:16] == [
        "",
        "End coefficient (Dice above 0.8): 1.00 as in arXiv 2502.09269, 0.00 over the foreground alone (strict)",
        "",
        "probabilities     ECE  class-wise ECE     ACE   Brier  NLL",
        "               0.0123          0.0200  0.3000  0.1000    -",
        "",
        "map against errors  AUROC     AP  QU-BraTS    gain  wrong slices",
        "entropy             0.950  0.500     0.900  -0.010         0.625",
        "",
        "confidence against risk   AURC  E-AURC  AUGRC  AUROC  FPR@95  Spearman",
        "mean_entropy             0.200   0.100  0.050      -       -    -0.750",
    ]


def test_folds_add_the_spread_of_their_means():
    """Fold means 0.9 and 0.7 of the mean Dice: 0.8 ± 0.2/√2."""
    cases = [replace(case("p1", 0.9), fold="fold_0"), replace(case("p2", 0.7), fold="fold_1")]
    found = own(*cases) | fold_summary(FolderEvaluation(STRUCTURES, cases), end_threshold=0.8)
    lines = evaluation_lines(found)
    assert lines[0] == "2 cases of 2 folds, mean Dice 0.800 ± 0.141"
    assert [" ".join(line.split()) for line in fold_lines(found)] == [
        "",
        "over the folds Dice HD95 mm HD mm NSD volume error ml lesion F1 pooled Dice",
        "LV 0.800 ± 0.141 4.00 ± 0.00 12.50 ± 0.00 0.700 ± 0.000 -1.93 ± 0.00 1.000 ± 0.000 -",
        "scar - - - - - - -",
        "",
        "Mean Dice over the folds 0.800 ± 0.141: fold_0 0.900 (1 case), fold_1 0.700 (1 case)",
    ]


def test_the_chosen_end_coefficient_comes_first():
    figures = {"end_slice_dice_paper": 0.9, "end_slice_dice_strict": 0.5}
    settings = {"end_variant": "strict", "end_threshold": 0.7, "end_stack": "foreground"}
    assert end_lines(own(case("p1", 0.9, **figures), settings=settings)) == [
        "",
        "End coefficient of the true foreground (Dice above 0.7): 0.00 over the foreground alone (strict), "
        "1.00 as in arXiv 2502.09269",
    ]


def test_a_folder_without_a_case_has_no_numbers():
    lines = evaluation_lines(own())
    assert lines[0] == "0 cases, mean Dice -"
    assert not any("Worst" in line for line in lines)


def test_a_comparison_says_which_way_and_how_sure():
    compared = {
        "mean_dice": PairedComparison(0.012345, -0.001, 0.02, 0.95, 0.0312, cases=20, groups=10, left_out=0),
        "LV hd95_mm": PairedComparison(-3.5, NAN, NAN, 0.95, NAN, cases=1, groups=1, left_out=19),
    }
    assert comparison_lines(compared, "stock") == [
        "",
        "difference to stock     mean        95% interval       p  cases",
        "mean_dice            +0.0123  -0.0010 to +0.0200  0.0312     20",
        "LV hd95_mm           -3.5000              - to -       -      1",
        "",
        "A dash: too few cases or patients for an interval.",
    ]


def test_the_first_column_is_to_the_left_and_numbers_to_the_right():
    assert aligned([["a", "number"], ["longer", "1"]]) == ["a       number", "longer       1"]


def test_numbers_that_are_not_defined_are_dashes():
    assert [shown(NAN, 3), signed(NAN), percent(NAN)] == ["-"] * 3
    assert [shown(0.12345, 3), signed(0.5), signed(-0.5), percent(0.125)] == ["0.123", "+0.5000", "-0.5000", "12%"]
