"""Labels of one dataset in the numbers of another, and the maps that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_ext.evaluation.label_maps import NotComparableError
from nnunet_ext.evaluation.label_translation import parse_translation, translated

MODEL = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
TRUTH = {"background": 0, "LV": 1, "MYO": 2, "RV": 3, "atrium": 4}


def test_numbers_and_names_may_be_mixed():
    expected = {0: 0, 1: 3, 2: 2, 3: 1}
    assert parse_translation(["1:3", "2:2", "3:1"], MODEL, None) == expected
    assert parse_translation(["LV:LV", "2:MYO", "RV:1"], MODEL, TRUTH) == expected


def test_a_truth_gets_the_labels_of_the_predictions():
    truth = np.array([[0, 1], [2, 3]], np.uint8)
    assert translated(truth, {0: 0, 1: 3, 2: 2, 3: 1}).tolist() == [[0, 3], [2, 1]]


def test_labels_may_be_joined_and_left_out_if_it_is_said():
    translation = parse_translation(["1:1", "2:1", "atrium:background"], {"background": 0, "heart": 1}, TRUTH)
    assert translated(np.array([0, 1, 2, 4]), translation).tolist() == [0, 1, 1, 0]


def test_a_label_that_is_not_named_is_not_guessed():
    """3 could stay 3, and would be joined with what 1 becomes."""
    with pytest.raises(NotComparableError, match="also contains 3, 4"):
        translated(np.array([0, 1, 2, 3, 4]), {0: 0, 1: 3, 2: 2})


def test_an_ignore_label_can_be_named():
    labels = {"background": 0, "organ": 1, "ignore": 2}
    assert parse_translation(["1:1", "255:ignore"], labels, None) == {0: 0, 1: 1, 255: 2}


def test_labels_of_regions_are_numbers_or_names_of_one_label():
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    assert parse_translation(["3:core", "4:1"], labels, None) == {0: 0, 3: 2, 4: 1}
    with pytest.raises(ValueError, match='not "whole" as a single label'):
        parse_translation(["3:whole"], labels, None)


@pytest.mark.parametrize(
    ("entries", "truth_labels", "message"),
    [
        (["1-3"], TRUTH, 'found "1-3"'),
        ([":3"], TRUTH, 'found ":3"'),
        (["1:"], TRUTH, 'found "1:"'),
        (["1:3", "LV:2"], TRUTH, 'LV is named twice, the second time in "LV:2"'),
        (["1:9"], TRUTH, 'the predictions have .* and not "9"'),
        (["1:scar"], TRUTH, 'the predictions have .* and not "scar"'),
        (["9:1"], TRUTH, 'the truth have .* and not "9"'),
        (["LV:3"], None, 'need the dataset.json of the truth.*found "LV"'),
    ],
)
def test_what_is_no_map_is_refused(entries, truth_labels, message):
    with pytest.raises(ValueError, match=message):
        parse_translation(entries, MODEL, truth_labels)
