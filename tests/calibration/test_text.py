"""What the terminal says about a fit."""

from __future__ import annotations

import math

import pytest

from nnunet_ext.calibration.text import estimate_lines, one_member_lines


@pytest.mark.parametrize(
    ("without", "words"),
    [
        (0, ["off by 0.066 on average; its interval of 90% held 95% "]),
        (3, ["off by 0.066 on average", "No estimate for 3 of 40 cases left out, which are for review"]),
        (40, ["No estimate for 40 of 40 cases left out"]),
    ],
)
def test_cases_without_an_estimate_are_counted_apart_from_the_error_of_the_others(without, words):
    figures = {"cases": 40, "without_estimate": without, "mean_absolute_error": 0.066, "interval_coverage": 0.95}
    if without == 40:
        figures |= {"mean_absolute_error": math.nan, "interval_coverage": math.nan}
    lines = estimate_lines(figures, 0.9)
    assert len(lines) == len(words)
    for line, part in zip(lines, words, strict=True):
        assert part in line
        assert "nan" not in line


def test_one_member_a_fold_gets_a_dash_and_a_hint():
    lines = one_member_lines([{"members": 1}, {"members": "1"}])
    assert [line.split() for line in lines[:-1]] == [["pairwise_dice", *"---"], ["mutual_information", *"---"]]
    assert "--tta-members" in lines[-1]
    assert "mc-dropout" in lines[-1]
    assert one_member_lines([{"members": 1}, {"members": 2}]) == []
    assert one_member_lines([{}]) == []
