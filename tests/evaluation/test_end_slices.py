"""The end coefficient on stacks that are drawn by hand; each slice is a row of ten pixels."""

import math

import numpy as np
import pytest

from nnunet_ext.evaluation import end_coefficient
from nnunet_ext.evaluation.end_slices import end_slice_dice, stack_axis_of

EMPTY = [0] * 10


def stack(*rows):
    """(D, 1, W)"""
    return np.array(rows, dtype=np.uint8)[:, None]


def row(label, size):
    """A slice with `size` pixels of a label at its left."""
    return [label] * size + [0] * (10 - size)


# --- one slice, by hand ---


def test_the_strict_variant_is_the_mean_over_foreground_classes_that_are_there():
    """Class 1: 2·2/(2 + 4) = 2/3. Class 2: only predicted, 0. Class 3 is in neither. (2/3 + 0)/2."""
    truth, prediction = stack([1, 1, 1, 1, 0, 0, 0, 0, 0, 0]), stack([1, 1, 0, 0, 2, 0, 0, 0, 0, 0])
    assert end_slice_dice(prediction, truth, num_classes=4, variant="strict") == pytest.approx(1 / 3)


def test_the_papers_variant_counts_background_and_absent_classes():
    """The same slice. Background: 2·5/(7 + 6) = 10/13. Class 3 is in neither: 1. (10/13 + 2/3 + 0 + 1)/4."""
    truth, prediction = stack([1, 1, 1, 1, 0, 0, 0, 0, 0, 0]), stack([1, 1, 0, 0, 2, 0, 0, 0, 0, 0])
    expected = (10 / 13 + 2 / 3 + 0 + 1) / 4
    assert end_slice_dice(prediction, truth, num_classes=4, variant="paper") == pytest.approx(expected)


def test_a_missed_structure_is_punished_by_the_strict_variant_only():
    """One pixel of class 1 is missed. Strict: 0. Paper: background 2·9/(10 + 9) = 18/19, 0, 1, 1: 0.737."""
    truth, prediction = stack(row(1, 1)), stack(EMPTY)
    assert end_slice_dice(prediction, truth, num_classes=4, variant="strict") == 0
    paper = end_slice_dice(prediction, truth, num_classes=4, variant="paper")
    assert paper == pytest.approx((18 / 19 + 0 + 1 + 1) / 4)


@pytest.mark.parametrize(("variant", "expected"), [("paper", 1), ("strict", math.nan)])
def test_a_frame_that_is_empty_in_both_is_perfect_in_the_paper_and_nothing_in_strict(variant, expected):
    empty = stack(EMPTY, EMPTY, EMPTY, EMPTY)
    value = end_slice_dice(empty, empty, num_classes=4, variant=variant)
    assert value == pytest.approx(expected, nan_ok=True)


# --- which slices ---


def test_only_the_first_two_and_the_last_two_slices_count():
    """Slices 2 and 3 of six are wrong, and nobody sees it."""
    truth = stack(*[row(1, 4)] * 6)
    prediction = truth.copy()
    prediction[2:4] = 0
    assert end_slice_dice(prediction, truth, num_classes=2, variant="strict") == 1


@pytest.mark.parametrize("wrong", [0, 1, -2, -1])
def test_each_end_slice_is_a_quarter(wrong):
    truth = stack(*[row(1, 4)] * 6)
    prediction = truth.copy()
    prediction[wrong] = 0
    assert end_slice_dice(prediction, truth, num_classes=2, variant="strict") == 0.75


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_each_slice_of_a_short_stack_counts_once(depth):
    """The first slice is wrong, the others are right."""
    truth = stack(*[row(1, 4)] * depth)
    prediction = truth.copy()
    prediction[0] = 0
    assert end_slice_dice(prediction, truth, num_classes=2, variant="strict") == (depth - 1) / depth


def test_the_strict_variant_leaves_out_a_slice_that_holds_nothing():
    """Slices: empty in both, Dice 1, Dice 2·2/(4 + 2) = 2/3, only predicted 0. (1 + 2/3 + 0)/3."""
    truth = stack(EMPTY, row(1, 4), row(1, 4), EMPTY)
    prediction = stack(EMPTY, row(1, 4), row(1, 2), row(1, 1))
    assert end_slice_dice(prediction, truth, num_classes=2, variant="strict") == pytest.approx(5 / 9)


def test_the_ends_may_be_those_of_the_labelled_extent():
    """The truth is in slices 1 to 6 of eight, with a gap at 3. Its ends are 1, 2, 5 and 6; 1 and 6 are missed."""
    truth = stack(EMPTY, row(1, 4), row(1, 4), EMPTY, row(1, 4), row(1, 4), row(1, 4), EMPTY)
    prediction = truth.copy()
    prediction[[1, 4, 6]] = 0
    options = {"num_classes": 2, "variant": "strict"}
    assert end_slice_dice(prediction, truth, end_definition="foreground", **options) == 0.5
    # of the volume 0 and 7 hold nothing, 1 and 6 are lacking
    assert end_slice_dice(prediction, truth, end_definition="volume", **options) == 0
    assert end_coefficient([prediction], [truth], end_definition="foreground", threshold=0.4, **options) == 1
    assert end_coefficient([prediction], [truth], end_definition="volume", threshold=0.4, **options) == 0


def test_the_prediction_does_not_move_the_labelled_extent():
    """Foreground of the truth is in slices 2 and 3 only; what is predicted at the ends of the volume is not seen."""
    truth = stack(EMPTY, EMPTY, row(1, 4), row(1, 4), EMPTY, EMPTY)
    prediction = stack(*[row(1, 4)] * 6)
    options = {"num_classes": 2, "end_definition": "foreground"}
    assert end_slice_dice(prediction, truth, variant="strict", **options) == 1
    assert end_slice_dice(prediction, truth, variant="paper", **options) == 1


@pytest.mark.parametrize("variant", ["paper", "strict"])
def test_a_truth_without_foreground_has_no_labelled_extent(variant):
    truth, prediction = stack(EMPTY, EMPTY), stack(row(1, 4), EMPTY)
    value = end_slice_dice(prediction, truth, num_classes=2, variant=variant, end_definition="foreground")
    assert math.isnan(value)


@pytest.mark.parametrize(
    ("spacing_mm", "axis"),
    [
        ((1.0, 1.5, 8.0), 2),
        ((2.0, 8.0, 2.0), 1),
        ((1.0, 1.0, 1.0), 0),  # all the same: the first
        ((1.0, 1.5, 1.5), 1),
        ((1.0, 1.00001, 1.0), 0),  # the rounding of a header is no difference
        ((999.0, 1.0, 1.0), 0),  # a 2D image, as nnU-Net reads it
    ],
)
def test_the_stack_is_along_the_largest_spacing(spacing_mm, axis):
    assert stack_axis_of(spacing_mm) == axis


# --- the coefficient ---


def test_the_coefficient_is_a_share_of_frames():
    """Frames with 1, 3/4 and 0: one of three is above 0.8."""
    truth = stack(*[row(1, 4)] * 5)
    three_quarters = truth.copy()
    three_quarters[0] = 0
    frames = [truth, three_quarters, np.zeros_like(truth)]
    assert end_coefficient(frames, [truth] * 3, num_classes=2, variant="strict") == pytest.approx(1 / 3)
    assert end_coefficient(frames, [truth] * 3, num_classes=2, variant="strict", threshold=0.7) == pytest.approx(
        2 / 3
    )


def test_frames_may_differ_in_shape():
    frames = [np.ones((5, 3, 4), dtype=int), np.ones((2, 6, 7), dtype=int)]
    assert end_coefficient(frames, frames, num_classes=2) == 1


def test_a_frame_at_the_threshold_does_not_count():
    """Two of three pixels against two of two: 2·2/(3 + 2) = 0.8 in each of the four slices."""
    truth, prediction = stack(*[row(1, 3)] * 4), stack(*[row(1, 2)] * 4)
    assert end_slice_dice(prediction, truth, num_classes=2, variant="strict") == 0.8
    assert end_coefficient([prediction], [truth], num_classes=2, variant="strict") == 0
    assert end_coefficient([prediction], [truth], num_classes=2, variant="strict", threshold=0.799) == 1


def test_the_papers_variant_is_the_default_and_the_kinder_one():
    """Strict 0. Paper: (18/19 + 0 + 1 + 1)/4 = 0.737 where a pixel is missed, 1 in three slices: 0.934."""
    truth = stack(row(1, 1), EMPTY, EMPTY, EMPTY)
    prediction = np.zeros_like(truth)
    assert end_coefficient([prediction], [truth], num_classes=4) == 1
    assert end_coefficient([prediction], [truth], num_classes=4, variant="strict") == 0


def test_frames_without_a_counted_slice_are_left_out():
    empty, full = stack(EMPTY, EMPTY, EMPTY, EMPTY), stack(*[row(1, 4)] * 4)
    frames = ([full, empty, empty], [full, full, empty])  # perfect, missed, nothing to see
    assert end_coefficient(*frames, num_classes=2, variant="strict") == 0.5
    assert math.isnan(end_coefficient([empty], [empty], num_classes=2, variant="strict"))


def test_random_frames_against_loops():
    generator = np.random.default_rng(0)
    depths = (1, 2, 3, 4, 7, 9)
    labels = [generator.integers(0, 4, (depth, 4, 3)) for depth in depths]
    predictions = [
        np.where(generator.random(truth.shape) < 0.2, generator.integers(0, 4, truth.shape), truth)
        for truth in labels
    ]

    def reference(prediction, truth):
        depth = len(truth)
        by_slice = []
        for index in {0, min(1, depth - 1), max(depth - 2, 0), depth - 1}:
            by_class = []
            for label in range(4):
                a = {tuple(p) for p in np.argwhere(prediction[index] == label)}
                b = {tuple(p) for p in np.argwhere(truth[index] == label)}
                by_class.append(2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0)
            by_slice.append(sum(by_class) / 4)
        return sum(by_slice) / len(by_slice)

    expected = [reference(*pair) for pair in zip(predictions, labels, strict=True)]
    found = [end_slice_dice(*pair, num_classes=4, variant="paper") for pair in zip(predictions, labels, strict=True)]
    assert found == pytest.approx(expected)
    threshold = float(np.median(expected)) + 1e-9
    share = sum(value > threshold for value in expected) / len(expected)
    assert 0 < share < 1
    assert end_coefficient(predictions, labels, num_classes=4, threshold=threshold) == pytest.approx(share)


# --- refusals ---

FRAME = np.zeros((4, 2, 2), dtype=int)


def test_no_frames_are_refused():
    with pytest.raises(ValueError, match="found none"):
        end_coefficient([], [], num_classes=4)


def test_a_prediction_without_truth_is_refused():
    with pytest.raises(ValueError, match="2 predictions and 1 label maps"):
        end_coefficient([FRAME, FRAME], [FRAME], num_classes=4)


def test_a_prediction_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 2, 1\) and \(4, 2, 2\)"):  # would broadcast
        end_coefficient([FRAME[:, :, :1]], [FRAME], num_classes=4)


@pytest.mark.parametrize("shape", [(2, 2), (1, 4, 2, 2), (0, 2, 2)])
def test_what_is_no_stack_of_slices_is_refused(shape):
    with pytest.raises(ValueError, match=r"\(D, H, W\)"):
        end_coefficient([np.zeros(shape)], [np.zeros(shape)], num_classes=4)


@pytest.mark.parametrize(("label", "name"), [(4, "truth"), (-1, "truth"), (4, "prediction")])
def test_a_label_that_is_no_class_is_refused(label, name):
    wrong = np.full_like(FRAME, label)
    pair = (FRAME, wrong) if name == "truth" else (wrong, FRAME)
    with pytest.raises(ValueError, match=f"0 to 3; the {name} has {label}"):
        end_slice_dice(*pair, num_classes=4, variant="strict")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "lenient"}, "paper, strict; found 'lenient'"),
        ({"end_definition": "apex"}, "volume, foreground; found 'apex'"),
        ({"threshold": 80}, r"\[0, 1\]; found 80"),
        ({"num_classes": 1}, "at least 2; found 1"),
    ],
)
def test_an_unknown_choice_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        end_coefficient([FRAME], [FRAME], **{"num_classes": 4, **options})
