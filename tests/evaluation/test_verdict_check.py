"""Intervals and verdicts of a handful of cases, counted by hand."""

from __future__ import annotations

import math

import pytest

from nnunet_ext.evaluation.results import CaseEvaluation
from nnunet_ext.evaluation.verdict_check import verdict_check, verdict_check_lines


def case(name: str, dice: float) -> CaseEvaluation:
    return CaseEvaluation(name, {}, {"mean_dice": dice}, {})


def row(name: str, verdict: str, predicted: str = "", low: str = "", high: str = "") -> dict[str, str]:
    return {
        "case": name, "verdict": verdict, "predicted_dice": predicted, "predicted_dice_low": low,
        "predicted_dice_high": high,
    }  # fmt: skip


# Failures below 0.75: b, c, d and, empty in truth and prediction, e. In their intervals: a, b at its end, d.
CASES = [case("a", 0.9), case("b", 0.7), case("c", 0.4), case("d", 0.3), case("e", math.nan), case("f", 0.75)]
ROWS = [
    row("a", "accept", "0.85", "0.8", "0.95"),
    row("b", "accept", "0.8", "0.7", "0.9"),
    row("c", "review", "0.8", "0.7", "0.9"),
    row("d", "reject", "0.4", "0.2", "0.5"),
    row("e", "review", "0.8", "0.7", "0.9"),
    row("f", "review"),  # no estimate
]


def test_intervals_and_verdicts_are_held_against_the_truth():
    found = verdict_check(CASES, ROWS)
    assert found.failures == {"accept": 1, "review": 2, "reject": 1}
    assert found.good == {"accept": 1, "review": 1, "reject": 0}
    assert found.missed == ("b",)
    assert (found.inside, found.intervals, found.without_interval) == (3, 5, 1)
    assert found.coverage == pytest.approx(3 / 5)


def test_a_person_reads_it_in_sentences():
    lines = verdict_check_lines(verdict_check(CASES, ROWS))
    assert "3 of 5 cases (60%)" in lines[0]
    assert lines[1].startswith("1 of 6 cases")
    assert "Of 4 failures (Dice below 0.75) the verdicts caught 3 (2 review, 1 reject) and missed 1: b." in lines[2]
    assert lines[3] == "Of 2 good cases: 1 accepted, 1 for review, 0 rejected."


def test_an_interval_of_too_few_patients_is_neither_right_nor_wrong():
    """An older table has 0 to 1 where there is no estimate; it would always be right."""
    found = verdict_check(CASES[:2], [row("a", "accept", "0.85"), row("b", "review", "", "0", "1")])
    assert (found.inside, found.intervals, found.without_interval) == (0, 0, 2)
    assert math.isnan(found.coverage)
    assert not any("true Dice" in line for line in verdict_check_lines(found))


def test_without_a_failure_nothing_could_be_caught():
    found = verdict_check(CASES[:1], ROWS, failure_dice=0.8)
    assert sum(found.failures.values()) == 0
    assert any("nothing to catch" in line for line in verdict_check_lines(found))


@pytest.mark.parametrize(
    ("cases", "rows"),
    [
        (CASES, []),
        (CASES, [{"case": "a"}, row("b", "")]),
        ([], ROWS),
        ([case("z", 0.5)], ROWS),
        ([CaseEvaluation("a", {}, {}, {})], ROWS),
    ],
)
def test_without_a_verdict_and_a_truth_there_is_nothing_to_check(cases, rows):
    assert verdict_check(cases, rows) is None
