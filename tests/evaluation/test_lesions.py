"""Lesions that are drawn by hand, and scikit-image's components in a loop."""

import math

import numpy as np
import pytest
from skimage.measure import label

from nnunet_ext.evaluation.lesions import LesionDetection, detect_lesions, lesion_f1


def drawn(*rows):
    """(H, W), set where a row has an x."""
    return np.array([[letter == "x" for letter in row] for row in rows])


def counts(prediction, truth, **options):
    found = detect_lesions(prediction, truth, **options)
    return found.found, found.missed, found.confirmed, found.spurious


# --- by hand ---


def test_lesions_are_found_missed_and_made_up():
    """Two true lesions, one of them found; of three predicted ones two are spurious. Recall 1/2, precision 1/3."""
    truth = drawn("xx...xx....", "...........", "...........")
    prediction = drawn(".x.........", "...........", ".x.x.......")
    assert counts(prediction, truth) == (1, 1, 1, 2)
    detection = detect_lesions(prediction, truth)
    assert (detection.recall, detection.precision) == pytest.approx((1 / 2, 1 / 3))
    # 2 · 1/2 · 1/3 / (1/2 + 1/3)
    assert detection.f1 == lesion_f1(prediction, truth) == pytest.approx(0.4)


def test_a_corner_connects():
    diagonal = drawn("x..", ".x.", "..x")
    assert counts(diagonal, diagonal) == (1, 0, 1, 0)
    cube = np.zeros((2, 2, 2), dtype=bool)
    cube[0, 0, 0] = cube[1, 1, 1] = True
    assert counts(cube, cube) == (1, 0, 1, 0)


def test_to_lie_side_by_side_is_not_to_touch():
    assert counts(drawn("..xx"), drawn("xx..")) == (0, 1, 0, 1)


def test_one_prediction_may_find_two_lesions():
    assert counts(drawn("xxxxx"), drawn("xx.xx")) == (2, 0, 1, 0)
    assert lesion_f1(drawn("xxxxx"), drawn("xx.xx")) == 1


def test_the_pieces_of_a_prediction_all_count_as_confirmed():
    assert counts(drawn("xx.xx"), drawn("xxxxx")) == (1, 0, 2, 0)
    assert lesion_f1(drawn("xx.xx"), drawn("xxxxx")) == 1


@pytest.mark.parametrize(("min_overlap", "found"), [(0, 1), (0.3, 1), (0.31, 0), (1, 0)])
def test_a_lesion_may_have_to_be_covered_by_a_share(min_overlap, found):
    """3 of 10 voxels, in two pieces that count together. With too little it is missed, but nothing is made up."""
    truth, prediction = drawn("xxxxxxxxxx."), drawn("xx......x..")
    assert counts(prediction, truth, min_overlap=min_overlap) == (found, 1 - found, 2, 0)


def test_a_lesion_that_is_covered_completely_is_found_at_any_share():
    assert counts(drawn("xxxx"), drawn(".xx."), min_overlap=1) == (1, 0, 1, 0)


# --- empty masks ---

EMPTY, FULL = drawn("...", "..."), drawn("x.x", "...")


def test_without_any_lesion_there_is_no_f1():
    detection = detect_lesions(EMPTY, EMPTY)
    assert detection == LesionDetection(found=0, missed=0, confirmed=0, spurious=0)
    assert math.isnan(detection.f1) and math.isnan(detection.recall) and math.isnan(detection.precision)


def test_where_one_side_is_empty_f1_is_zero():
    assert counts(EMPTY, FULL) == (0, 2, 0, 0)
    assert counts(FULL, EMPTY) == (0, 0, 0, 2)
    assert lesion_f1(EMPTY, FULL) == lesion_f1(FULL, EMPTY) == 0


def test_f1_is_zero_where_nothing_meets():
    assert lesion_f1(drawn("x.."), drawn("..x")) == 0


def test_f1_is_zero_where_all_is_touched_and_nothing_found():
    assert lesion_f1(drawn("x..."), drawn("xxxx"), min_overlap=0.5) == 0


# --- against the definition ---


@pytest.mark.parametrize("shape", [(15, 17), (7, 9, 8)])
@pytest.mark.parametrize("min_overlap", [0, 0.25, 0.5])
def test_random_masks_against_sets_of_voxels(shape, min_overlap):
    def pieces(mask):
        numbered = label(mask, connectivity=mask.ndim)
        return [set(map(tuple, np.argwhere(numbered == number))) for number in range(1, numbered.max() + 1)]

    generator = np.random.default_rng(0)
    for _ in range(5):
        prediction, truth = (generator.random(shape) < 0.08 for _ in range(2))
        predicted = set(map(tuple, np.argwhere(prediction)))
        true = set(map(tuple, np.argwhere(truth)))
        covered = [len(piece & predicted) for piece in pieces(truth)]
        sizes = [len(piece) for piece in pieces(truth)]
        found = sum(c > 0 and c >= min_overlap * size for c, size in zip(covered, sizes, strict=True))
        confirmed = sum(bool(piece & true) for piece in pieces(prediction))
        expected = (found, len(sizes) - found, confirmed, len(pieces(prediction)) - confirmed)
        assert counts(prediction, truth, min_overlap=min_overlap) == expected


# --- refusals ---


@pytest.mark.parametrize("min_overlap", [-0.1, 1.1, math.nan])
def test_an_overlap_that_is_no_share_is_refused(min_overlap):
    with pytest.raises(ValueError, match=r"share of a lesion in \[0, 1\]"):
        detect_lesions(FULL, FULL, min_overlap=min_overlap)


def test_a_label_map_is_refused():
    with pytest.raises(TypeError, match="prediction == label"):
        detect_lesions(FULL.astype(int), FULL)
