"""Columns of `cases.csv` turned so that larger means more confident."""

from __future__ import annotations

import math

import pytest

from nnunet_ext.evaluation.confidences import DIRECTIONS, confidence_of, number_in, usable_columns


@pytest.mark.parametrize("cell", [0.25, "0.25"])
def test_uncertainties_get_a_minus(cell):
    assert confidence_of({"pairwise_dice": cell}, "pairwise_dice") == 0.25
    assert confidence_of({"mean_entropy": cell}, "mean_entropy") == -0.25


@pytest.mark.parametrize("row", [{}, {"mean_entropy": ""}, {"mean_entropy": None}, {"mean_entropy": math.nan}])
def test_a_row_without_a_value_has_no_confidence(row):
    assert math.isnan(confidence_of(row, "mean_entropy"))


def test_zero_is_a_value():
    assert confidence_of({"pairwise_dice": 0}, "pairwise_dice") == 0


def test_usable_are_the_columns_that_every_row_has():
    """The second row is of a single member, which has no pairwise Dice."""
    rows = [
        {"pairwise_dice": "0.9", "mean_entropy": "0.1", "foreground_entropy": "0.2", "members": "4"},
        {"pairwise_dice": "", "mean_entropy": "0.3", "foreground_entropy": "0.4", "members": "1"},
    ]
    assert usable_columns(rows) == ["mean_entropy", "foreground_entropy"]
    assert usable_columns(rows[:1]) == ["pairwise_dice", "mean_entropy", "foreground_entropy"]


@pytest.mark.parametrize("column", ["pairwise_dice", "mutual_information"])
def test_one_member_has_nobody_to_disagree_with(column):
    """Tables of earlier versions hold a mutual information of 0 there, which would read as certain."""
    for one in (1, "1"):
        assert math.isnan(confidence_of({column: 0.0, "members": one}, column))
        assert usable_columns([{column: "0", "mean_entropy": "0.1", "members": one}]) == ["mean_entropy"]
    assert confidence_of({column: "0", "members": "2"}, column) == 0


def test_without_rows_no_column_is_usable():
    assert usable_columns([]) == []


def test_an_expected_dice_comes_before_what_it_was_made_of():
    assert next(iter(DIRECTIONS)) == "predicted_dice"
    assert set(DIRECTIONS.values()) == {1, -1}


def test_numbers_of_a_calibration_count_as_those_of_a_table():
    assert number_in({"dice": 0.0}, "dice") == 0.0
    assert math.isnan(number_in({"dice": None}, "dice"))
    assert number_in({"dice": "0.25"}, "dice") == 0.25


def test_a_decimal_comma_is_refused():
    with pytest.raises(ValueError, match="decimal mark; the column dice of a holds '0,8'"):
        number_in({"case": "a", "dice": "0,8"}, "dice")
