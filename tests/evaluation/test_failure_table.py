"""Three cases by hand: every confidence column, and rows that do not fit."""

from __future__ import annotations

import math

import pytest

from nnunet_ext.evaluation.failure_table import dice_as_judged, failure_table
from nnunet_ext.evaluation.results import CaseEvaluation


def case(name: str, dice: float) -> CaseEvaluation:
    return CaseEvaluation(name, {}, {"mean_dice": dice}, {})


CASES = [case("a", 0.5), case("b", 0.8), case("c", 0.9)]  # risks 0.5, 0.2, 0.1
ROWS = [
    {"case": "a", "pairwise_dice": "0.2", "mean_entropy": "0.1", "mutual_information": ""},
    {"case": "b", "pairwise_dice": "0.6", "mean_entropy": "0.2", "mutual_information": "0.1"},
    {"case": "c", "pairwise_dice": "0.9", "mean_entropy": "0.3", "mutual_information": "0.2"},
]


def test_columns_that_all_cases_have_are_judged():
    """Agreement orders the cases as they are: c, then b, then a. The entropy says the reverse.

    Selective risks 0.1, (0.1 + 0.2)/2 and 0.8/3: AURC (0.1 + (0.1 + 0.15)/2 + (0.15 + 0.8/3)/2)/3. The reverse:
    0.5, 0.35 and 0.8/3.
    """
    table = failure_table(CASES, ROWS)
    assert list(table) == ["pairwise_dice", "mean_entropy"]
    good, bad = table["pairwise_dice"], table["mean_entropy"]
    best = (0.1 + (0.1 + 0.15) / 2 + (0.15 + 0.8 / 3) / 2) / 3
    worst = (0.5 + (0.5 + 0.35) / 2 + (0.35 + 0.8 / 3) / 2) / 3
    assert (good["aurc"], bad["aurc"]) == pytest.approx((best, worst))
    assert (good["e_aurc"], bad["e_aurc"]) == pytest.approx((0, worst - best))
    # one failure, a: found at once, or last of all
    assert (good["failure_auroc"], bad["failure_auroc"]) == (1, 0)
    assert (good["fpr_at_95_tpr"], bad["fpr_at_95_tpr"]) == (0, 1)
    assert (good["spearman"], bad["spearman"]) == pytest.approx((-1, 1))
    assert list(good) == ["aurc", "e_aurc", "augrc", "failure_auroc", "fpr_at_95_tpr", "spearman", "pearson"]


def test_the_order_of_the_rows_and_rows_of_other_cases_do_not_matter():
    other = {"case": "d", "pairwise_dice": "", "mean_entropy": "0.9"}
    assert failure_table(CASES, [other, *reversed(ROWS)]) == failure_table(CASES, ROWS)


def test_what_a_failure_is_can_be_chosen():
    """No case is below 0.4: there is no failure to find."""
    found = failure_table(CASES, ROWS, failure_dice=0.4)["pairwise_dice"]
    assert math.isnan(found["failure_auroc"])
    assert found["aurc"] == pytest.approx(failure_table(CASES, ROWS)["pairwise_dice"]["aurc"])


def test_a_case_that_is_empty_in_truth_and_prediction_is_all_the_risk_there_is():
    """A confident one: it makes the selective risks 1, 1/2 + …, and a failure."""
    cases = [case("a", 0.5), case("b", 0.8), case("c", math.nan)]
    assert [dice_as_judged(each) for each in cases] == [0.5, 0.8, 0]
    found = failure_table(cases, ROWS)["pairwise_dice"]
    # accepted c, b, a with the risks 1, 0.2, 0.5
    assert found["aurc"] == pytest.approx((1 + (1 + 0.6) / 2 + (0.6 + 1.7 / 3) / 2) / 3)


@pytest.mark.parametrize(("cases", "rows"), [(CASES, ROWS[:2]), (CASES, []), ([], ROWS)])
def test_without_a_row_for_every_case_there_is_no_table(cases, rows):
    assert failure_table(cases, rows) == {}
