"""What speaks against relying on a calibration, from figures worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from nnunet_ext.calibration.doubts import doubts
from nnunet_ext.calibration.folds import fold_spread
from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.calibration.quality import QualityMap
from nnunet_ext.calibration.temperature import Temperature
from nnunet_ext.calibration.text import doubt_lines
from nnunet_ext.calibration.verdict import Threshold

CALIBRATION = Calibration(
    temperature=Temperature((1.0, 1.0), regions=False),
    confidence="mean_entropy",
    quality=QualityMap((-0.2, -0.1), (0.5, 0.9), -0.1, 0.1, 0.9, 40, 40),
    threshold=Threshold(-0.15, 0.75, 0.95, 0.2, 20, 40),
    mask=None,
    settings={},
    fitted_on={},
    figures={
        "quality": {"mean_absolute_error": 0.05, "mean_absolute_error_of_mean": 0.1},
        "folds": {"mean_dice": {"0": 0.8, "1": 0.9}, "between": 0.07, "within": 0.1},
    },
    cases=[],
)


def with_figures(**changes: object) -> Calibration:
    return replace(CALIBRATION, figures={**CALIBRATION.figures, **changes})


def test_nothing_is_said_against_a_calibration_that_tells_more_than_the_mean():
    assert doubts(CALIBRATION) == []
    assert doubt_lines(CALIBRATION) == []


@pytest.mark.parametrize(("own", "of_mean", "told"), [(0.4, 0.215, True), (0.1, 0.1, False), (0.05, 0.1, False)])
def test_an_estimate_that_is_worse_than_the_mean_is_doubted(own, of_mean, told):
    figures = {"mean_absolute_error": own, "mean_absolute_error_of_mean": of_mean}
    found = doubts(with_figures(quality=figures))
    assert len(found) == told
    if told:
        assert "off by 0.400 on average" in found[0]
        assert "off by 0.215" in found[0]
        assert doubt_lines(with_figures(quality=figures))[1].startswith("Warning: ")


@pytest.mark.parametrize(("nll", "told"), [(0.41, True), (0.40, False), (0.39, False)])
def test_a_temperature_that_makes_left_out_cases_worse_is_doubted(nll, told):
    kinds = {"global": {"values": [1.0, 1.0]}, "per-class": {"values": [1.2, 0.9]}}
    figures = {
        "none": {"ece": 0.10, "nll": 0.40},
        "global": {"ece": 0.11, "nll": nll},
        "per-class": {"ece": 0.5, "nll": 0.9},  # not the one that is applied
    }
    found = doubts(replace(with_figures(temperature=figures), fitted_on={"temperatures": kinds}))
    assert len(found) == told
    if told:
        assert "NLL 0.4100 instead of 0.4000, ECE 0.1100 instead of 0.1000" in found[0]


def test_folds_whose_means_scatter_more_than_their_cases_are_doubted():
    """Means 0.70 and 0.27: 0.43/√2 = 0.304. Each case is 0.02 off its mean: √(4 · 0.0004/(4 - 2)) = 0.0283."""
    spread = fold_spread({"0": [0.68, 0.72], "1": [0.25, 0.29]})
    assert spread["mean_dice"] == pytest.approx({"0": 0.7, "1": 0.27})
    assert spread["between"] == pytest.approx(0.43 / math.sqrt(2))
    assert spread["within"] == pytest.approx(math.sqrt(0.0008))
    (found,) = doubts(with_figures(folds=spread))
    assert "0: 0.70, 1: 0.27" in found
    assert "0.304" in found


def test_one_fold_and_folds_of_one_case_have_nothing_to_compare():
    assert math.isnan(fold_spread({"0": [0.6, 0.8]})["between"])
    assert math.isnan(fold_spread({"0": [0.6], "1": [0.8]})["within"])
    for folds in ({"0": [0.6, 0.8]}, {"0": [0.6], "1": [0.8]}):
        assert doubts(with_figures(folds=fold_spread(folds))) == []


def test_a_case_without_foreground_counts_as_0():
    assert fold_spread({"0": [0.8, math.nan]})["mean_dice"] == {"0": 0.4}


@pytest.mark.parametrize(
    ("failures", "cases", "told"),
    [(5, 10, []), (4, 20, ["4 of 20 cases fail"]), (17, 20, ["3 of 20 cases are good"]),
     (0, 4, ["0 of 4 cases fail", "4 of 4 cases are good"])],
)  # fmt: skip
def test_fewer_than_five_of_a_kind_are_told(failures, cases, told):
    threshold = replace(CALIBRATION.threshold, failures=failures, cases=cases)
    found = doubts(replace(CALIBRATION, threshold=threshold))
    assert [text.split(",")[0] for text in found] == told


def test_figures_of_earlier_versions_and_undefined_ones_are_no_doubt():
    """NaN is null in the file."""
    assert doubts(replace(CALIBRATION, figures={})) == []
    undefined = {"mean_absolute_error": None, "mean_absolute_error_of_mean": None}
    assert doubts(with_figures(quality=undefined, folds={"mean_dice": {}, "between": None, "within": None})) == []
