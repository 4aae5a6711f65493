"""The Hausdorff loss of distance transforms by hand, against its definition in NumPy and against MONAI's."""

import numpy as np
import pytest
import torch
from drawn_targets import certain, drawn, foreground, logit, random_labels, random_logits, require_agreement, value_of
from monai.losses.hausdorff_loss import HausdorffDTLoss
from scipy.ndimage import distance_transform_edt

from nnunet_ext.losses.hausdorff_distance import HausdorffDTTerm
from nnunet_ext.losses.targets import OutputForm

LINE = drawn("..111..")


def hausdorff(logits, labels, *, spacing=None, alpha=2.0, form=None):
    spacing = spacing or (1.0,) * (labels.ndim - 2)
    return value_of(HausdorffDTTerm(form or OutputForm(), spacing, alpha), logits, labels)


def numpy_distance(inside, sampling):
    if not inside.any() or inside.all():
        return np.zeros(inside.shape)
    return distance_transform_edt(inside, sampling) + distance_transform_edt(~inside, sampling)


def numpy_hausdorff(exact, labels, sampling, alpha=2):
    return np.mean(
        [
            ((p - g) ** 2 * (numpy_distance(g > 0.5, sampling) ** alpha + numpy_distance(p > 0.5, sampling) ** alpha))
            for p, g in foreground(exact, labels)
        ]
    )


@pytest.mark.parametrize(("alpha", "expected"), [(1, 2 + 1), (2, 4 + 1), (3, 8 + 1)])
def test_a_false_positive_costs_its_distance_to_both_boundaries(alpha, expected):
    """Voxel 6 is 2 away from the truth, and 1 from what is not predicted."""
    logits = certain(drawn("..111.1"), 2)
    assert hausdorff(logits, LINE, alpha=alpha).item() == pytest.approx(expected / 7)


def test_a_false_negative_costs_its_distance_to_both_boundaries():
    """Voxel 3 is 2 away from what lies outside, and 1 from what is predicted."""
    assert hausdorff(certain(drawn("..1.1.."), 2), LINE).item() == pytest.approx((4 + 1) / 7)


def test_without_a_prediction_only_the_truths_boundary_counts():
    """The three voxels of the truth are 1, 2 and 1 away from what lies outside: 1 + 4 + 1."""
    assert hausdorff(certain(drawn("......."), 2), LINE).item() == pytest.approx(6 / 7)


def test_a_class_that_fills_the_patch_has_only_the_predictions_boundary():
    """Truth everywhere, predicted in the first of four voxels: the others are 1, 2 and 3 away from it."""
    assert hausdorff(certain(drawn("1..."), 2), drawn("1111")).item() == pytest.approx((1 + 4 + 9) / 4)
    assert hausdorff(certain(drawn("...."), 2), drawn("1111")).item() == 0


def test_a_doubtful_voxel_costs_the_square_of_its_error():
    """p = 1/4 in voxel 6, below 1/2: no boundary of the prediction there. 1/16 of (2^2 + 2^2)."""
    logits = certain(LINE, 2)
    logits[0, 1, 6] = logits[0, 0, 6] + logit(0.25)
    assert hausdorff(logits, LINE).item() == pytest.approx((4 + 4) / 16 / 7, rel=1e-4)


def test_thick_slices_cost_more():
    """Rows 3 mm apart, columns 1 mm.

    In the next row a voxel is 3 from the truth, and 1 from what is not predicted, beside it; in the next column it
    is 1 from both.
    """
    truth = drawn(".....", "..1..", ".....")
    above, beside = drawn("..1..", "..1..", "....."), drawn(".....", "..11.", ".....")
    assert hausdorff(certain(above, 2), truth, spacing=(3.0, 1.0)).item() == pytest.approx((9 + 1) / 15)
    assert hausdorff(certain(beside, 2), truth, spacing=(3.0, 1.0)).item() == pytest.approx((1 + 1) / 15)


def test_the_mean_is_over_classes_that_a_patch_has():
    logits = certain(drawn("..1.1.."), 3)
    assert hausdorff(logits, LINE).item() == pytest.approx((4 + 1) / 7)


@pytest.mark.parametrize(("shape", "spacing"), [((4, 5), (1.0, 1.0)), ((3, 4, 4), (2.5, 1.0, 0.5))])
def test_value_and_gradient_are_those_of_the_definition(shape, spacing):
    """No gradient flows through the distances: they are constant between the steps of p > 1/2."""
    labels = random_labels(shape, batch=1)
    logits = random_logits(labels)
    sampling = np.array(spacing) / min(spacing)
    require_agreement(
        lambda given: hausdorff(given, labels, spacing=spacing),
        lambda exact: numpy_hausdorff(exact, labels, sampling),
        logits,
    )


@pytest.mark.parametrize("shape", [(9, 11), (5, 6, 7)])
@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_on_a_grid_of_equal_sides_it_is_monais(shape, alpha):
    labels = random_labels(shape)
    logits = random_logits(labels)
    monai = HausdorffDTLoss(alpha=alpha, softmax=True, to_onehot_y=True)
    assert hausdorff(logits, labels, alpha=alpha).item() == pytest.approx(monai(logits, labels).item(), rel=1e-5)


def test_monais_mean_counts_absent_classes():
    labels = random_labels((9, 11), batch=1)
    logits = torch.cat([random_logits(labels), torch.full((1, 2, 9, 11), -100.0)], dim=1)  # two classes more
    monai = HausdorffDTLoss(softmax=True, to_onehot_y=True)
    assert hausdorff(logits, labels).item() == pytest.approx(2 * monai(logits, labels).item(), rel=1e-5)
