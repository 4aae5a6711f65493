from __future__ import annotations

import pytest

from nnunet_ext.report.numbers import column_words, fixed, interval, percent, significant, with_capital, with_spread

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (173.615, "174"),
        (36.0708, "36.1"),
        (0.0251117, "0.0251"),
        (0, "0"),
        (1234.5, "1230"),
        (-2.5, "−2.50"),
        (NAN, "–"),
    ],
)
def test_three_digits_that_count(value, text):
    assert significant(value) == text


def test_digits_behind_the_point():
    assert fixed(0.8666) == "0.867"
    assert fixed(-0.5, 1) == "−0.5"
    assert fixed(NAN) == "–"


def test_volumes_have_the_spread_of_the_members_if_there_are_several():
    assert with_spread(36.08, 0.174) == "36.1 ± 17 %"
    assert with_spread(36.08, NAN) == "36.1"


def test_a_prediction_has_its_interval_if_there_is_one():
    assert interval(0.871, 0.78, 0.93) == "0.87 (0.78 to 0.93)"
    assert interval(0.871, NAN, NAN) == "0.87"
    assert interval(NAN, 0.0, 1.0) == "no estimate"


def test_words():
    assert percent(0.174) == "17 %"
    assert column_words("volume_ml_RV") == "volume ml RV"
    assert with_capital("pairwise Dice") == "Pairwise Dice"
