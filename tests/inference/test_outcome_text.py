"""The summary at the end of a prediction."""

from pathlib import Path

import pytest

from nnunet_ext.inference.outcome_text import closing_lines
from nnunet_ext.inference.run import RunOutcome


def outcome_of(**rows):
    outcome = RunOutcome()
    for case, row in rows.items():
        outcome.done(case, {"members": 3, "flags": [], "pairwise_dice": 0.9, "foreground_entropy": 0.1, **row})
    return outcome


def test_only_the_first_line_is_shown_if_nothing_was_predicted():
    outcome = RunOutcome(skipped=["a"], failed={"b": "is cut"})
    assert closing_lines(outcome, Path("out")) == ["0 predicted, 1 complete before, 1 failed: out"]


def test_members_flags_and_where_the_table_is():
    """An empty segmentation is reported, not just counted as predicted."""
    outcome = outcome_of(a={}, b={"flags": ["empty_segmentation"]})
    assert closing_lines(outcome, Path("out")) == [
        "2 predicted, 0 failed: out",
        "  members: 3 per case",
        "  empty_segmentation: b",
        "  open first: b",
        f"  table: {Path('out') / 'cases.csv'}",
    ]


def test_of_many_cases_with_a_flag_three_are_named():
    outcome = outcome_of(**{name: {"flags": ["all_members_empty"]} for name in "abcde"})
    assert "  all_members_empty: a, b, c and 2 more" in closing_lines(outcome, Path("out"))


@pytest.mark.parametrize(
    ("rows", "first"),
    [
        pytest.param({"a": {}, "b": {"pairwise_dice": 0.8}}, "b", id="the members agree least"),
        pytest.param(
            {"a": {"pairwise_dice": float("nan")}, "b": {"pairwise_dice": float("nan"), "foreground_entropy": 0.3}},
            "b",
            id="one member: the largest entropy",
        ),
        pytest.param(
            {
                "a": {"verdict": "accept", "predicted_dice": 0.9, "pairwise_dice": 0.8},
                "b": {"verdict": "accept", "predicted_dice": 0.7, "pairwise_dice": 0.9},
            },
            "b",
            id="calibrated: the lowest predicted Dice",
        ),
        pytest.param({"a": {"pairwise_dice": 0.1}, "b": {"flags": ["empty_segmentation"]}}, "b", id="a flag"),
    ],
)
def test_the_case_to_open_first(rows, first):
    assert f"  open first: {first}" in closing_lines(outcome_of(**rows), Path("out"))


def test_verdicts_are_counted_and_a_rejected_case_comes_first_with_its_reason():
    outcome = outcome_of(
        a={"verdict": "accept", "verdict_reason": "", "pairwise_dice": 0.1},
        b={"verdict": "reject", "verdict_reason": "predicted Dice 0.41"},
        c={"verdict": "review", "verdict_reason": "no estimate"},
    )
    lines = closing_lines(outcome, Path("out"))
    assert "  verdicts: 1 reject, 1 review, 1 accept" in lines
    assert "  open first: b (reject: predicted Dice 0.41)" in lines
