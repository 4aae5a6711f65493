"""Bins of a reliability diagram, of a handful of voxels and of more than single precision can count."""

import numpy as np
import pytest

from nnunet_ext.evaluation import expected_calibration_error
from nnunet_ext.evaluation.reliability import (
    ReliabilityBins,
    bin_of,
    class_reliability_bins,
    region_reliability_bins,
    reliability_bins,
)

# Five voxels, two classes. The bins are [0, 0.25), [0.25, 0.5), [0.5, 0.75), [0.75, 1].
FOREGROUND = np.array([0.0625, 0.375, 0.625, 0.875, 1.0])
TWO_CLASSES = np.stack([1 - FOREGROUND, FOREGROUND])  # (2, 5)
LABELS = np.array([0, 1, 1, 0, 1])


def test_a_probability_of_one_belongs_to_the_last_bin():
    diagram = reliability_bins(np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([1, 0]), bins=100)
    assert diagram.counts.shape == (100,)
    assert (diagram.counts[-1], diagram.mean_confidence[-1], diagram.accuracy[-1]) == (2, 1, 0.5)


def test_an_edge_belongs_to_the_bin_above_it():
    diagram = ReliabilityBins.of(np.array([0, 0.25, 0.5, 0.75, 1]), np.ones(5, dtype=bool), bins=4)
    assert diagram.counts.tolist() == [1, 1, 1, 2]


def test_a_diagram_tells_confidence_and_accuracy_and_nothing_of_empty_bins():
    diagram = class_reliability_bins(TWO_CLASSES[:, :3], LABELS[:3], bins=4)[1]
    assert diagram.counts.tolist() == [1, 1, 1, 0]
    np.testing.assert_array_equal(diagram.mean_confidence, [0.0625, 0.375, 0.625, np.nan])
    np.testing.assert_array_equal(diagram.accuracy, [0, 1, 1, np.nan])


def test_slabs_of_a_volume_add_up_to_the_volume():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([1, 1, 1, 1], (5, 6, 7)).transpose(3, 0, 1, 2)  # (4, 5, 6, 7)
    labels = generator.integers(0, 4, (5, 6, 7))
    slabs = [reliability_bins(probabilities[:, z], labels[z]) for z in range(len(labels))]
    total, whole = sum(slabs, ReliabilityBins.empty(100)), reliability_bins(probabilities, labels)
    assert np.array_equal(total.counts, whole.counts)
    assert np.array_equal(total.correct, whole.correct)
    np.testing.assert_allclose(total.confidence_sums, whole.confidence_sums, rtol=1e-14)
    assert total.expected_error() == pytest.approx(expected_calibration_error(probabilities, labels))


def test_unequal_bins_do_not_add_up():
    with pytest.raises(ValueError, match="equal bins add up; found 10 and 20"):
        ReliabilityBins.empty(10) + ReliabilityBins.empty(20)


@pytest.mark.parametrize("bins", [0, -3])
def test_no_bins_are_refused(bins):
    with pytest.raises(ValueError, match=f"at least one bin; found {bins}"):
        expected_calibration_error(TWO_CLASSES, LABELS, bins=bins)


def test_forty_million_voxels_are_counted_to_the_last():
    """93% sure and 86% right: 0.07. Counters in float32 end at 2^24 = 16.8 million voxels.

    100 voxels, repeated in memory once and 400 000 times in the shape.
    """
    labels = np.zeros(100, dtype=np.uint8)
    labels[:14] = 1  # wrong, as the background is predicted
    probabilities = np.array([[0.93], [0.07]], dtype=np.float32)
    diagram = reliability_bins(
        np.broadcast_to(probabilities, (2, 40_000_000)), np.broadcast_to(labels, (400_000, 100)).ravel()
    )
    assert diagram.counts.sum() == 40_000_000
    assert diagram.correct.sum() == 34_400_000
    assert diagram.expected_error() == pytest.approx(0.07, abs=1e-7)  # 0.93 is rounded to single precision


def test_a_thousand_volumes_of_a_million_voxels_are_counted_to_the_last():
    """10^9 voxels, far above 2^24, of which one is added at the end and counts."""
    volume = ReliabilityBins(np.array([0, 1_000_000]), np.array([0, 930_000.0]), np.array([0, 860_000]))
    voxel = ReliabilityBins(np.array([1, 0]), np.array([0.25]).repeat(2) * [1, 0], np.array([0, 0]))
    total = sum([volume] * 1000, ReliabilityBins.empty(2)) + voxel
    assert total.counts.dtype == total.correct.dtype == np.int64
    assert total.confidence_sums.dtype == np.float64
    assert total.counts.tolist() == [1, 1_000_000_000]
    assert total.expected_error() == pytest.approx(0.07, abs=1e-8)


def test_a_region_is_decided_above_one_half_as_nnunet_does():
    diagram = region_reliability_bins(np.array([[0.5, 0.5]]), np.array([[True, False]]), bins=2)[0]
    assert (diagram.counts.tolist(), diagram.correct.tolist()) == ([0, 2], [0, 1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bins", [10, 15, 20, 100])
def test_an_edge_belongs_to_the_bin_above_it_in_every_precision(bins, dtype):
    """0.29 in 32 bits is less than 0.29 in 64 bits: the edge is rounded as the probability is."""
    edges = np.array([number / bins for number in range(bins)], dtype)
    assert bin_of(edges, bins).tolist() == list(range(bins))
    below = np.nextafter(edges[1:], dtype(0))
    assert bin_of(below, bins).tolist() == list(range(bins - 1))
    assert bin_of(np.array([1], dtype), bins).tolist() == [bins - 1]


def test_bins_are_merged_and_no_voxel_is_lost():
    bins = ReliabilityBins(np.array([1, 2, 3, 4]), np.array([0.1, 0.6, 1.8, 3.6]), np.array([0, 1, 2, 4]))
    merged = bins.merged(2)
    assert merged.counts.tolist() == [3, 7]
    assert merged.correct.tolist() == [1, 6]
    np.testing.assert_allclose(merged.confidence_sums, [0.7, 5.4])
    assert bins.merged(3).counts.tolist() == [3, 7]  # three equal bins cannot be made of four
