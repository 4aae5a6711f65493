"""The calibration error as a loss by hand, against its definition in NumPy and against the evaluation's error."""

import numpy as np
import pytest
import torch
from drawn_targets import drawn, foreground, logit, random_labels, random_logits, require_agreement, softmax, value_of

from nnunet_ext.evaluation.calibration_error import average_calibration_error
from nnunet_ext.evaluation.reliability import class_reliability_bins
from nnunet_ext.losses.marginal_calibration import ACETerm, bins_of
from nnunet_ext.losses.targets import OutputForm


def ace(logits, labels, **options):
    return value_of(ACETerm(options.pop("form", OutputForm()), **options), logits, labels)


def two_classes(*probabilities):
    """Logits (1, 2, W) of a line with these probabilities of class 1."""
    logits = torch.zeros(1, 2, len(probabilities))
    logits[0, 1] = torch.tensor([logit(p) for p in probabilities])
    return logits


def numpy_soft_shares(p, bins):
    """How much of each voxel lies in each bin, (bins, voxels): linear between centres, all of it beyond the last."""
    centres = (np.arange(bins) + 0.5) / bins
    inner = np.clip(p, centres[0], centres[-1])
    return np.maximum(1 - np.abs(inner - centres[:, None]) * bins, 0)


def numpy_hard_shares(p, bins):
    return (np.minimum(np.floor(p * bins), bins - 1) == np.arange(bins)[:, None]).astype(float)


def numpy_error(p, g, shares):
    gaps = []
    for share in shares:
        if share.sum() > 0:
            voxels = max(share.sum(), 1)  # a bin with less than a voxel in all counts as one
            gaps.append(abs((share * p).sum() - (share * g).sum()) / voxels)
    return np.mean(gaps)


# --- by hand ---


def test_two_bins_by_hand():
    """Below 1/2: mean confidence 0.2, one of two voxels is the class, 0.5. Above: mean 0.7, one of one: 0.3."""
    logits, labels = two_classes(0.1, 0.3, 0.7), drawn("011")
    assert ace(logits, labels, bins=2).item() == pytest.approx((0.3 + 0.3) / 2, rel=1e-5)


def test_bins_count_the_same_however_many_voxels_they_hold():
    """Nine voxels at 0.1 of which none is the class, one at 0.6 that is: gaps 0.1 and 0.4."""
    logits, labels = two_classes(*[0.1] * 9, 0.6), drawn("0000000001")
    assert ace(logits, labels, bins=2).item() == pytest.approx((0.1 + 0.4) / 2, rel=1e-5)


def test_empty_bins_do_not_count():
    logits, labels = two_classes(0.1, 0.3, 0.7), drawn("011")
    assert ace(logits, labels, bins=10).item() == pytest.approx((0.1 + 0.7 + 0.3) / 3, rel=1e-5)


def test_soft_bins_share_a_voxel_by_hand():
    """The centres of two bins are 1/4 and 3/4. p = 1/2 belongs to both by half, 1/4 to the first, 0.9 to the last.

    First bin: 1 + 1/2 voxels, confidence (1/4 + 1/4) / 1.5 = 1/3, none is the class. Second bin: 1 + 1/2 voxels,
    confidence (0.9 + 1/4) / 1.5, accuracy 1/1.5.
    """
    logits, labels = two_classes(0.25, 0.5, 0.9), drawn("001")
    expected = (1 / 3 + 0.15 / 1.5) / 2
    assert ace(logits, labels, bins=2, binning="soft").item() == pytest.approx(expected, rel=1e-4)


def test_the_mean_is_over_classes_that_a_patch_has():
    logits = torch.cat([two_classes(0.1, 0.3, 0.7), torch.full((1, 1, 3), -100.0)], dim=1)
    assert ace(logits, drawn("011"), bins=2).item() == pytest.approx(0.3, rel=1e-5)


def test_a_calibrated_prediction_has_no_loss():
    """Of four voxels with p = 1/4 one is the class."""
    assert ace(two_classes(*[0.25] * 4), drawn("0001")).item() == pytest.approx(0, abs=1e-6)


# --- bins ---


def test_edges_belong_to_the_bin_above_and_1_to_the_last():
    ((index, share),) = bins_of(torch.tensor([0, 0.2499, 0.25, 0.5, 0.99, 1]), 4, "hard")
    assert index.tolist() == [0, 0, 1, 2, 3, 3]
    assert share.tolist() == [1] * 6


@pytest.mark.parametrize("bins", [1, 4, 20])
def test_the_two_shares_of_a_voxel_make_one_of_it(bins):
    p = torch.linspace(0, 1, 101, dtype=torch.float64)
    found = torch.zeros(bins, 101, dtype=torch.float64)
    for index, share in bins_of(p, bins, "soft"):
        found.scatter_add_(0, index[None], share[None])
    np.testing.assert_allclose(found, numpy_soft_shares(p.numpy(), bins), atol=1e-9)
    np.testing.assert_allclose(found.sum(dim=0), 1)


# --- other definitions ---


@pytest.mark.parametrize(("binning", "shares"), [("hard", numpy_hard_shares), ("soft", numpy_soft_shares)])
@pytest.mark.parametrize("bins", [1, 5, 20])
@pytest.mark.parametrize("shape", [(6, 7), (3, 4, 5)])
def test_value_and_gradient_are_those_of_the_definition(binning, shares, bins, shape):
    labels = random_labels(shape)

    def definition(exact):
        return np.mean(
            [numpy_error(p.ravel(), g.ravel(), shares(p.ravel(), bins)) for p, g in foreground(exact, labels)]
        )

    require_agreement(lambda given: ace(given, labels, bins=bins, binning=binning), definition, random_logits(labels))


def test_of_one_patch_it_is_the_evaluations_error_of_the_foreground():
    labels = random_labels((6, 7), batch=1)
    logits = random_logits(labels)
    diagrams = class_reliability_bins(softmax(logits.double().numpy())[0], labels[0, 0].numpy(), bins=20)
    expected = np.mean([diagram.average_error() for diagram in diagrams[1:]])
    assert ace(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_of_two_classes_it_is_the_evaluations_error_of_both():
    """The background's bins are the other class's, mirrored; its gaps are the same."""
    labels = random_labels((6, 7), classes=2, batch=1)
    logits = random_logits(labels, classes=2)
    probabilities = softmax(logits.double().numpy())[0]
    expected = average_calibration_error(probabilities, labels[0, 0].numpy(), bins=20)
    assert ace(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_with_ignored_voxels_it_is_the_evaluations_error_with_a_mask():
    labels = random_labels((6, 7), classes=2, batch=1)
    labels[..., :2] = 9
    logits = random_logits(labels, classes=2)
    truth = labels[0, 0].numpy()
    expected = average_calibration_error(softmax(logits.double().numpy())[0], truth, bins=20, mask=truth != 9)
    assert ace(logits, labels, form=OutputForm(ignore_label=9)).item() == pytest.approx(expected, rel=1e-5)
