"""Calibration of a handful of voxels by hand, by definitions in loops, and by other packages."""

import math
import subprocess
import sys

import numpy as np
import pytest

from nnunet_ext.boxes import foreground_box
from nnunet_ext.evaluation import expected_calibration_error
from nnunet_ext.evaluation.calibration_error import (
    average_calibration_error,
    class_wise_ece,
    region_expected_calibration_error,
)
from nnunet_ext.evaluation.counted_voxels import CHUNK
from nnunet_ext.evaluation.proper_scores import (
    brier_score,
    negative_log_likelihood,
    region_brier_score,
    region_negative_log_likelihood,
)
from nnunet_ext.evaluation.reliability import reliability_bins

CLASS_METRICS = [
    expected_calibration_error,
    class_wise_ece,
    average_calibration_error,
    brier_score,
    negative_log_likelihood,
]
REGION_METRICS = [region_expected_calibration_error, region_brier_score, region_negative_log_likelihood]

# Five voxels, two classes. The bins are [0, 0.25), [0.25, 0.5), [0.5, 0.75), [0.75, 1].
FOREGROUND = np.array([0.0625, 0.375, 0.625, 0.875, 1.0])
TWO_CLASSES = np.stack([1 - FOREGROUND, FOREGROUND])  # (2, 5)
LABELS = np.array([0, 1, 1, 0, 1])


def random_case(classes=4, shape=(5, 6, 7), seed=0):
    """Probabilities (C, *shape) and labels (*shape) that follow them more often than not."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=2, size=(classes, *shape))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    labels = np.where(
        generator.random(shape) < 0.6, probabilities.argmax(axis=0), generator.integers(0, classes, shape)
    )
    return probabilities, labels


def calibration_gaps(confidence, correct, bins):
    """(voxels, |accuracy - confidence|) of every bin that holds a voxel, one voxel after the other."""
    members = {}
    for probability, hit in zip(confidence.ravel(), correct.ravel(), strict=True):
        members.setdefault(min(math.floor(probability * bins), bins - 1), []).append((probability, hit))
    return [(len(m), abs(sum(hit for _, hit in m) - sum(p for p, _ in m)) / len(m)) for m in members.values()]


# --- by hand ---


def test_expected_calibration_error_weights_the_gaps_with_the_voxels():
    """The most likely class has 0.9375, 0.625 | 0.625, 0.875 | 1; it is right, wrong, right, wrong, right.

    [0.5, 0.75): two voxels, confidence 0.625, accuracy 0.5: 0.125. [0.75, 1]: three, (0.9375 + 0.875 + 1)/3 = 0.9375,
    accuracy 2/3: 0.2708333. (2 · 0.125 + 3 · 0.2708333)/5 = 0.2125.
    """
    assert expected_calibration_error(TWO_CLASSES, LABELS, bins=4) == pytest.approx(0.2125)


def test_class_wise_error_looks_at_each_class_in_its_own_bins():
    """Foreground: 0.0625 is none, 0.375 is one, 0.625 is one, {0.875, 1} is one of two.

    (0.0625 + 0.625 + 0.375 + 2 · |0.9375 - 0.5|)/5 = 1.9375/5 = 0.3875. Background is the mirror image: {1 - 1,
    1 - 0.875} in the first bin, 0.375, 0.625 and 0.9375, so 0.3875 as well.
    """
    assert class_wise_ece(TWO_CLASSES, LABELS, bins=4) == pytest.approx(0.3875)


def test_average_error_counts_every_filled_bin_the_same():
    """The gaps from above: (0.0625 + 0.625 + 0.375 + 0.4375)/4 = 0.375, for both classes."""
    assert average_calibration_error(TWO_CLASSES, LABELS, bins=4) == pytest.approx(0.375)


def test_average_error_leaves_empty_bins_out():
    """All voxels at 0.75 and a quarter of them right: one bin, and a gap of 0.5, however many bins there are."""
    probabilities = np.full((2, 4), 0.25)
    probabilities[1] = 0.75
    for bins in (2, 20, 1000):
        # class 0 has 0.25 and is true for three of four: 0.5, too
        assert average_calibration_error(probabilities, np.array([0, 0, 0, 1]), bins=bins) == pytest.approx(0.5)


def test_brier_score_sums_over_the_classes():
    """The squares of 1 - p(true): 1/256, 25/64, 9/64, 49/64, 0: 333/256; twice that for both classes. By 5 voxels."""
    assert brier_score(TWO_CLASSES, LABELS) == pytest.approx(2 * 333 / 256 / 5)


def test_negative_log_likelihood_is_that_of_the_true_class():
    expected = -sum(math.log(p) for p in (0.9375, 0.375, 0.625, 0.125, 1.0)) / 5
    assert negative_log_likelihood(TWO_CLASSES, LABELS) == pytest.approx(expected)


def test_certain_and_wrong_is_the_worst_there_is():
    probabilities = np.array([[1.0], [0.0]])
    wrong = np.array([1])
    assert expected_calibration_error(probabilities, wrong) == 1
    assert class_wise_ece(probabilities, wrong) == 1
    assert average_calibration_error(probabilities, wrong) == 1
    assert brier_score(probabilities, wrong) == 2
    assert negative_log_likelihood(probabilities, wrong) == pytest.approx(-math.log(1e-7))  # 16.1 instead of infinity


@pytest.mark.parametrize("metric", CLASS_METRICS)
def test_certain_and_right_is_the_best_there_is(metric):
    labels = np.array([[0, 1, 2], [2, 1, 0]])
    assert metric(np.eye(3)[labels].transpose(2, 0, 1), labels) == 0


def test_of_two_equally_likely_classes_the_first_is_taken():
    """At (0.5, 0.5) that is class 0, at (0.25, 0.375, 0.375) class 1."""
    assert reliability_bins(np.full((2, 2), 0.5), np.array([0, 1]), bins=2).correct.tolist() == [0, 1]
    probabilities = np.array([[0.25] * 3, [0.375] * 3, [0.375] * 3])
    assert reliability_bins(probabilities, np.array([1, 2, 1]), bins=2).correct.tolist() == [2, 0]


# --- many voxels ---


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_more_voxels_than_a_chunk_are_all_counted(dtype):
    """A quarter is right at 0.75: every gap is 0.5, of both classes. Brier 2 (1/16 + 3 · 9/16)/4 = 7/8."""
    voxels = CHUNK + 1000  # a multiple of four
    probabilities = np.broadcast_to(np.array([[0.75], [0.25]], dtype=dtype), (2, voxels))
    labels = np.ones(voxels, dtype=np.int8)
    labels[::4] = 0
    assert expected_calibration_error(probabilities, labels) == 0.5
    assert class_wise_ece(probabilities, labels) == 0.5
    assert average_calibration_error(probabilities, labels) == 0.5
    assert brier_score(probabilities, labels) == 7 / 8
    expected = -(math.log(0.75) + 3 * math.log(0.25)) / 4
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(expected)


# --- what counts ---


@pytest.mark.parametrize("metric", CLASS_METRICS)
@pytest.mark.parametrize("ignore_label", [-1, 4, 255])
def test_an_ignore_label_is_left_out_by_a_mask(metric, ignore_label):
    probabilities, labels = random_case()
    counts = np.random.default_rng(1).random(labels.shape) < 0.5
    marked = np.where(counts, labels, ignore_label)
    expected = metric(probabilities[:, counts], labels[counts])
    assert metric(probabilities, marked, mask=marked != ignore_label) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("metric", CLASS_METRICS)
def test_an_ignore_label_without_a_mask_is_refused(metric):
    probabilities, labels = random_case()
    labels[0, 0, 0] = 4
    with pytest.raises(ValueError, match=r"4 classes must be 0 to 3; found 0 to 4.*mask=labels != ignore_label"):
        metric(probabilities, labels)


@pytest.mark.parametrize("metric", CLASS_METRICS)
def test_no_voxel_that_counts_gives_nan(metric):
    assert math.isnan(metric(TWO_CLASSES, LABELS, mask=np.zeros(5, dtype=bool)))
    assert math.isnan(metric(np.zeros((2, 0, 3)), np.zeros((0, 3), dtype=int)))


@pytest.mark.parametrize("metric", REGION_METRICS)
def test_no_voxel_of_a_region_that_counts_gives_nan(metric):
    assert math.isnan(metric(FOREGROUND[None], LABELS[None] == 1, mask=np.zeros(5, dtype=bool)))


def test_a_volume_may_be_a_view_and_is_not_changed():
    probabilities, labels = random_case()
    before = probabilities.copy()
    view = probabilities[:, ::-1, 1:, ::2]
    expected = expected_calibration_error(np.ascontiguousarray(view), labels[::-1, 1:, ::2].copy())
    assert expected_calibration_error(view, labels[::-1, 1:, ::2]) == expected
    assert np.array_equal(probabilities, before)


def test_the_box_changes_what_is_measured():
    """Certain background outside of a box that is certain and wrong: 1 within, 1/9 in the whole image."""
    labels = np.zeros((3, 3), dtype=np.uint8)
    labels[1, 1] = 1
    probabilities = np.stack([np.ones((3, 3)), np.zeros((3, 3))])
    box = foreground_box(labels)
    assert expected_calibration_error(probabilities[(slice(None), *box)], labels[box]) == 1
    assert expected_calibration_error(probabilities, labels) == pytest.approx(1 / 9)


# --- regions ---


def test_a_region_is_a_problem_of_two_classes():
    """Its figures are those of (1 - p, p); the five voxels' are above."""
    region, truth = FOREGROUND[None], LABELS[None] == 1
    assert region_expected_calibration_error(region, truth, bins=4) == pytest.approx(0.2125)
    assert region_brier_score(region, truth) == pytest.approx(2 * 333 / 256 / 5)
    expected = -sum(math.log(p) for p in (0.9375, 0.375, 0.625, 0.125, 1.0)) / 5
    assert region_negative_log_likelihood(region, truth) == pytest.approx(expected)


def test_figures_of_regions_are_means_over_overlapping_regions():
    """A region that is right for certain (0) and one that is wrong for certain (1, 2 and -ln 10^-7)."""
    probabilities = np.ones((2, 3, 3))
    truth = np.stack([np.ones((3, 3), dtype=bool), np.zeros((3, 3), dtype=bool)])
    assert region_expected_calibration_error(probabilities, truth) == 0.5
    assert region_brier_score(probabilities, truth) == 1
    assert region_negative_log_likelihood(probabilities, truth) == pytest.approx(-math.log(1e-7) / 2)


def test_random_regions_against_their_two_classes():
    generator = np.random.default_rng(3)
    probabilities, mask = generator.random((3, 4, 5)), generator.random((4, 5)) < 0.7
    truth = generator.random((3, 4, 5)) < probabilities
    for ours, theirs in (
        (region_expected_calibration_error, expected_calibration_error),
        (region_brier_score, brier_score),
        (region_negative_log_likelihood, negative_log_likelihood),
    ):
        alone = [
            theirs(np.stack([1 - p, p]), t.astype(int), mask=mask) for p, t in zip(probabilities, truth, strict=True)
        ]
        assert ours(probabilities, truth, mask=mask) == pytest.approx(np.mean(alone))


def test_label_maps_are_no_regions():
    with pytest.raises(TypeError, match="boolean masks, one each; found int64"):
        region_brier_score(np.ones((1, 5)), np.ones((1, 5), dtype=np.int64))
    with pytest.raises(ValueError, match=r"both be \(R, \*spatial\); found \(2, 5\) and \(5,\)"):
        region_brier_score(np.ones((2, 5)), np.ones(5, dtype=bool))


# --- against the definitions ---


@pytest.mark.parametrize("bins", [1, 15, 20, 100])
def test_random_volumes_against_loops_over_voxels(bins):
    probabilities, labels = random_case()
    top = calibration_gaps(probabilities.max(axis=0), probabilities.argmax(axis=0) == labels, bins)
    expected = sum(n * gap for n, gap in top) / labels.size
    assert expected_calibration_error(probabilities, labels, bins=bins) == pytest.approx(expected)

    classes = [calibration_gaps(p, labels == label, bins) for label, p in enumerate(probabilities)]
    expected = np.mean([sum(n * gap for n, gap in gaps) / labels.size for gaps in classes])
    assert class_wise_ece(probabilities, labels, bins=bins) == pytest.approx(expected)
    expected = np.mean([np.mean([gap for _, gap in gaps]) for gaps in classes])
    assert average_calibration_error(probabilities, labels, bins=bins) == pytest.approx(expected)


def test_brier_score_and_likelihood_against_scikit_learn():
    from sklearn.metrics import brier_score_loss, log_loss

    probabilities, labels = random_case()
    flat = probabilities.reshape(4, -1).T  # (N, C)
    one_against_all = [brier_score_loss(labels.ravel() == label, flat[:, label]) for label in range(4)]
    assert brier_score(probabilities, labels) == pytest.approx(sum(one_against_all))
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(log_loss(labels.ravel(), flat))


@pytest.mark.parametrize("bins", [15, 20, 100])
def test_calibration_errors_against_netcal(bins):
    netcal = pytest.importorskip("netcal.metrics")
    probabilities, labels = random_case()
    flat, truth = probabilities.reshape(4, -1).T, labels.ravel()  # (N, C)
    expected = netcal.ECE(bins).measure(flat, truth)
    assert expected_calibration_error(probabilities, labels, bins=bins) == pytest.approx(expected)
    for metric, measure in ((class_wise_ece, netcal.ECE(bins)), (average_calibration_error, netcal.ACE(bins))):
        classes = [measure.measure(flat[:, label], (truth == label).astype(int)) for label in range(4)]
        assert metric(probabilities, labels, bins=bins) == pytest.approx(np.mean(classes))


@pytest.mark.parametrize("bins", [15, 100])
def test_expected_calibration_error_against_torchmetrics(bins):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    probabilities, labels = random_case()
    expected = functional.multiclass_calibration_error(
        torch.from_numpy(probabilities)[None], torch.from_numpy(labels)[None], num_classes=4, n_bins=bins, norm="l1"
    )
    assert expected_calibration_error(probabilities, labels, bins=bins) == pytest.approx(float(expected), abs=1e-6)


# --- refusals ---


@pytest.mark.parametrize("metric", CLASS_METRICS)
def test_shapes_that_do_not_belong_together_are_refused(metric):
    with pytest.raises(ValueError, match=r"\(C, \*spatial\).*found \(2, 5\) and \(4,\)"):
        metric(TWO_CLASSES, LABELS[:4])


@pytest.mark.parametrize("metric", CLASS_METRICS)
@pytest.mark.parametrize("value", [np.nan, -0.5, 1.5, np.inf])
def test_what_is_no_probability_is_refused(metric, value):
    probabilities = TWO_CLASSES.copy()
    probabilities[1, 2] = value
    with pytest.raises(ValueError, match=r"in \[0, 1\].*softmax or sigmoid"):
        metric(probabilities, LABELS)


def test_the_rounding_of_a_softmax_is_no_error():
    probabilities = np.array([[-1e-6], [1 + 1e-6]])
    assert expected_calibration_error(probabilities, np.array([1])) == pytest.approx(0, abs=1e-5)


def test_a_mask_that_is_none_is_refused():
    with pytest.raises(TypeError, match="boolean; found int64"):
        brier_score(TWO_CLASSES, LABELS, mask=np.ones(5, dtype=np.int64))
    with pytest.raises(ValueError, match=r"shape of the image, \(5,\); found \(1,\)"):
        brier_score(TWO_CLASSES, LABELS, mask=np.ones(1, dtype=bool))


def test_importing_the_metrics_imports_nothing_large():
    code = (
        "import sys; import nnunet_ext.evaluation as e, nnunet_ext.evaluation.uncertainty_maps;"
        "e.aurc, e.augrc, e.excess_aurc, e.end_coefficient, e.expected_calibration_error;"
        "sys.exit(' '.join({'torch', 'sklearn', 'monai', 'scipy', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
