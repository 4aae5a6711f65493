"""What the terminal says about a fit."""

from __future__ import annotations

import math

import pytest

from nnunet_ext.calibration.quality import QualityMap
from nnunet_ext.calibration.text import estimate_lines, interval_line, one_member_lines


def quality_of(patients: int) -> QualityMap:
    return QualityMap((0.2, 1.0), (0.2, 1.0), -0.1, 0.1, 0.9, 100, patients)


@pytest.mark.parametrize(
    ("without", "words"),
    [
        (0, ["off by 0.066 on average", "90% interval held for 95% of 40 "]),
        (
            3,
            [
                "off by 0.066 on average",
                "90% interval held for 95% of 37 ",
                "No estimate for 3 of 40 cases left out",
            ],
        ),
        (40, ["No estimate for 40 of 40 cases left out"]),
    ],
)
def test_cases_without_an_estimate_are_counted_apart_from_the_error_of_the_others(without, words):
    figures = {
        "cases": 40, "without_estimate": without, "intervals": 40 - without, "mean_absolute_error": 0.066,
        "interval_coverage": 0.95,
    }  # fmt: skip
    if without == 40:
        figures |= {"mean_absolute_error": math.nan, "interval_coverage": math.nan}
    lines = estimate_lines(figures, quality_of(40))
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


def test_too_few_patients_for_an_interval_are_told_and_no_share_of_it():
    """19 patients are the fewest at 0.9. Of 24 in two folds there is an interval, but none to measure."""
    found = {"intervals": 0, "interval_coverage": math.nan}
    assert interval_line(found, quality_of(11)).startswith("No interval around it: a 90% interval needs at least 19")
    assert "found 11" in interval_line(found, quality_of(11))
    assert "could not be measured" in interval_line(found, quality_of(24))
    assert "100%" not in interval_line(found, quality_of(11)) + interval_line(found, quality_of(24))
