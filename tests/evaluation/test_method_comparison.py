"""Two or three methods of one, two or three runs on four cases, worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from nnunet_ext.evaluation.comparison import paired_comparison
from nnunet_ext.evaluation.method_comparison import common_cases, compare_figure
from nnunet_ext.evaluation.method_text import figure_lines, method_lines
from nnunet_ext.evaluation.runs import Run

NAN = math.nan
PATIENTS = {"p1_ed": "p1", "p1_es": "p1", "p2_ed": "p2", "p2_es": "p2"}


def run(*values: float, figure: str = "mean_dice", cases: tuple[str, ...] = tuple(PATIENTS)) -> Run:
    return Run(Path("run"), {figure: dict(zip(cases, values, strict=True))}, {})


def test_seeds_of_a_method_are_averaged_case_by_case():
    """Cases of the first method: 0.7, 0.6, 0.8, 0.9, mean 0.75. Its two runs have 0.8 and 0.7: ± 0.1/√2."""
    methods = {"new": [run(0.8, 0.6, 0.8, 1.0), run(0.6, 0.6, 0.8, 0.8)], "old": [run(0.6, 0.6, 0.9, 0.5)]}
    found = compare_figure(methods, "mean_dice", PATIENTS)
    new, old = found.methods["new"], found.methods["old"]
    assert (found.cases, found.patients, found.left_out, found.better) == (4, 2, 0, "higher")
    assert (new.runs, new.mean, new.std_runs) == (2, pytest.approx(0.75), pytest.approx(0.1 / math.sqrt(2)))
    assert new.std_cases == pytest.approx(math.sqrt((0.05**2 + 0.15**2 + 0.05**2 + 0.15**2) / 3))
    assert (old.runs, old.mean) == (1, pytest.approx(0.65))
    assert math.isnan(old.std_runs)
    # ranks of the new method: 1, 1.5, 2, 1
    assert (new.rank.mean, old.rank.mean) == (1.375, 1.625)


def test_folds_of_a_method_are_joined():
    """Each run has its own cases; runs have the means 0.8 and 0.5, and cases 0.9, 0.7 and 0.5, 0.5."""
    first = run(0.9, 0.7, cases=("p1_ed", "p1_es"))
    second = run(0.5, 0.5, cases=("p2_ed", "p2_es"))
    methods = {"folds": [first, second], "old": [run(0.6, 0.6, 0.6, 0.6)]}
    numbers = compare_figure(methods, "mean_dice", PATIENTS).methods["folds"]
    assert (numbers.runs, numbers.mean) == (2, pytest.approx(0.65))
    assert numbers.std_runs == pytest.approx(0.3 / math.sqrt(2))


def test_every_pair_is_compared_by_patient():
    values = {"a": (0.8, 0.6, 0.8, 1.0), "b": (0.6, 0.6, 0.9, 0.5), "c": (0.1, 0.2, 0.3, 0.4)}
    methods = {name: [run(*each)] for name, each in values.items()}
    found = compare_figure(methods, "mean_dice", PATIENTS)
    assert len(found.differences) == 6
    for (one, other), difference in found.differences.items():
        assert difference == paired_comparison(values[one], values[other], groups=list(PATIENTS.values()))
    assert found.difference("a", "a") is None


def test_a_case_without_a_value_of_one_method_counts_for_none():
    methods = {"new": [run(0.8, NAN, 0.8, 1.0)], "old": [run(0.6, 0.0, 0.9, 0.5)]}
    found = compare_figure(methods, "mean_dice", PATIENTS)
    assert (found.cases, found.left_out) == (3, 1)
    assert found.methods["old"].mean == pytest.approx(2 / 3)
    assert figure_lines(found)[-1] == "over 3 cases; 1 left out, for which a method has no value"


def test_a_figure_that_a_method_defines_nowhere_has_no_numbers():
    methods = {"new": [run(NAN, NAN, NAN, NAN)], "old": [run(0.6, 0.0, 0.9, 0.5)]}
    found = compare_figure(methods, "mean_dice", PATIENTS)
    assert (found.cases, found.differences) == (0, {})
    assert all(math.isnan(numbers.mean) and math.isnan(numbers.rank.mean) for numbers in found.methods.values())
    assert "-" in figure_lines(found)[1]


def test_a_figure_without_a_good_end_has_no_ranks():
    methods = {name: [run(1.0, 2.0, 3.0, 4.0, figure="LV volume_ml")] for name in ("new", "old")}
    found = compare_figure(methods, "LV volume_ml", PATIENTS)
    assert found.better is None
    assert math.isnan(found.methods["new"].rank.mean)


def test_the_cases_are_those_that_every_method_has():
    methods = {
        "folds": [run(1.0, cases=("a",)), run(1.0, cases=("b",))],
        "single": [run(1.0, 1.0, 1.0, cases=("c", "b", "a"))],
        "less": [run(1.0, 1.0, cases=("b", "d"))],
    }
    assert common_cases(methods) == ["b"]
    with pytest.raises(ValueError, match="found none"):
        common_cases({"one": methods["folds"], "other": [run(1.0, cases=("z",))]})


def test_the_table_of_a_figure():
    methods = {"old": [run(0.6, 0.6, 0.6, 0.6)], "new": [run(0.7, 0.7, 0.7, 0.7)]}
    found = compare_figure(methods, "mean_dice", PATIENTS)
    lines = method_lines([found], {"cases": 4, "patients": 2, "not_common": 1, "methods": methods})
    assert [" ".join(line.split()) for line in lines] == [
        "2 methods on 4 cases of 2 patients",
        "Left out: 1 case that not every method has",
        "",
        "mean_dice (higher is better) runs mean ± runs ± cases rank interval difference to old interval p",
        "old 1 0.6000 - 0.0000 2.00 2.00 to 2.00",
        "new 1 0.7000 - 0.0000 1.00 1.00 to 1.00 +0.1000 +0.1000 to +0.1000 0.5000",
        "",
        "A dash: too few runs, cases or patients, or neither direction is better.",
    ]
