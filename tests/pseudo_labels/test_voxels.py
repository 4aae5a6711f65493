"""Which voxels of a prediction are believed, on volumes of a few voxels."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_ext.labels import LabelScheme
from nnunet_ext.pseudo_labels.voxels import (
    CaseShares,
    ConfidenceCounts,
    believed,
    case_shares,
    confidence_in_label,
    confidence_limits,
    ignored_shares,
)

CLASSES = LabelScheme({"organ": (1,), "tumour": (2,)})
REGIONS = LabelScheme({"whole": (1, 2), "core": (2,)}, regions=True)


def test_confidence_is_the_probability_of_the_label_that_was_written():
    """The last voxel was relabelled by post-processing: its members preferred label 2."""
    probabilities = np.array([[0.7, 0.1, 0.2], [0.2, 0.8, 0.3], [0.1, 0.1, 0.5]])
    found = confidence_in_label(probabilities, np.array([0, 1, 0]), CLASSES)
    assert found == pytest.approx([0.7, 0.8, 0.2])


def test_with_regions_the_least_certain_decision_counts():
    """Label 1 is in the whole and not in the core: the smaller one of p(whole) and 1 - p(core)."""
    probabilities = np.array([[0.9, 0.9, 0.05], [0.3, 0.6, 0.02]])
    found = confidence_in_label(probabilities, np.array([1, 2, 0]), REGIONS)
    assert found == pytest.approx([0.7, 0.6, 0.95])


def test_a_limit_is_lowered_until_half_of_a_rare_label_reaches_it():
    counts = ConfidenceCounts()
    counts.add(np.array([0, 0, 0, 2, 2]), np.array([1.0, 0.99, 0.95, 0.8005, 0.6005]))
    counts.add(np.array([0, 2, 2]), np.array([0.5, 0.7005, 0.5005]))
    limits = confidence_limits(counts, (0, 1, 2), confidence=0.9, label_confidence={}, least_kept=0.5)
    # label 2: 0.8 and 0.7 of four; label 1 was predicted nowhere
    assert limits == {0: 0.9, 1: 0.9, 2: 0.7}


def test_a_limit_of_its_own_is_not_lowered_and_no_share_lowers_none():
    counts = ConfidenceCounts()
    counts.add(np.array([1, 2]), np.array([0.6, 0.6]))
    of_its_own = confidence_limits(counts, (1, 2), confidence=0.9, label_confidence={2: 0.8}, least_kept=1)
    assert of_its_own == {1: 0.6, 2: 0.8}
    assert confidence_limits(counts, (1,), confidence=0.9, label_confidence={}, least_kept=0) == {1: 0.9}


def test_a_voxel_needs_confidence_and_agreement():
    segmentation, limits = np.array([0, 1, 1, 1]), {0: 0.9, 1: 0.6}
    confidence, disagreement = np.array([0.89, 0.6, 0.59, 0.99]), np.array([0, 0.1, 0, 0.11])
    both = believed(segmentation, confidence, disagreement, limits=limits, most_disagreement=0.1)
    assert both.tolist() == [False, True, False, False]
    confidence_only = believed(segmentation, confidence, None, limits=limits, most_disagreement=1)
    assert confidence_only.tolist() == [False, True, False, True]


def test_the_weight_of_a_case_is_the_mean_confidence_of_its_foreground():
    segmentation, kept = np.array([0, 1, 2]), np.array([True, True, False])
    shares = case_shares(segmentation, np.array([1.0, 0.8, 0.6]), kept)
    assert shares == CaseShares({0: 1, 1: 1, 2: 1}, {0: 1, 1: 1}, pytest.approx(0.7))


def test_without_foreground_it_is_that_of_all_voxels():
    shares = case_shares(np.array([0, 0]), np.array([1.0, 0.5]), np.array([True, True]))
    assert shares.confidence == 0.75


def test_the_ignored_share_of_a_label_is_over_all_cases():
    cases = [CaseShares({0: 6, 1: 3}, {0: 6, 1: 1}, 1), CaseShares({1: 1}, {}, 1)]
    assert ignored_shares(cases, (0, 1, 2)) == {0: 0, 1: 0.75, 2: None}
