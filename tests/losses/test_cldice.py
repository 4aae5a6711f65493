"""clDice by hand, against its definition in NumPy and against MONAI's loss."""

from inspect import signature

import numpy as np
import pytest
import torch
from drawn_targets import certain, drawn, foreground, random_labels, random_logits, require_agreement, value_of
from monai.losses.cldice import SoftclDiceLoss
from scipy.ndimage import maximum_filter, minimum_filter

from nnunet_ext.losses.cldice import ClDiceTerm
from nnunet_ext.losses.targets import OutputForm


def cldice(logits, labels, *, iterations=10, form=None):
    return value_of(ClDiceTerm(form or OutputForm(), iterations), logits, labels)


def numpy_eroded(x):
    """The smallest of a voxel and its neighbours along each axis; what lies outside is no neighbour."""
    sizes = [[3 if axis == chosen else 1 for axis in range(x.ndim)] for chosen in range(x.ndim)]
    return np.min([minimum_filter(x, size, mode="nearest") for size in sizes], axis=0)


def numpy_skeleton(x, iterations):
    def ridges(values):
        return np.maximum(values - maximum_filter(numpy_eroded(values), 3, mode="nearest"), 0)

    skeleton = ridges(x)
    for _ in range(iterations):
        x = numpy_eroded(x)
        skeleton = skeleton + np.maximum(ridges(x) - skeleton * ridges(x), 0)
    return skeleton


def numpy_cldice(exact, labels, iterations):
    losses = []
    for p, g in foreground(exact, labels):
        of_p, of_g = numpy_skeleton(p, iterations), numpy_skeleton(g, iterations)
        precision, sensitivity = (of_p * g).sum() / of_p.sum(), (of_g * p).sum() / of_g.sum()
        losses.append(1 - 2 * precision * sensitivity / (precision + sensitivity))
    return np.mean(losses)


LINE = drawn("..........", ".11111111.", "..........")


def test_half_of_a_line_by_hand():
    """A line is its own skeleton. T_prec = 4/4, T_sens = 4/8: 1 - 2 (1/2) / (3/2) = 1/3."""
    half = drawn("..........", ".1111.....", "..........")
    assert cldice(certain(half, 2), LINE).item() == pytest.approx(1 / 3, abs=1e-5)


def test_a_branch_that_is_not_there_by_hand():
    """Of the predicted line of ten voxels eight are in the truth: T_prec = 8/10, T_sens = 1: 1 - 1.6/1.8 = 1/9."""
    longer = drawn("..........", "1111111111", "..........")
    assert cldice(certain(longer, 2), LINE).item() == pytest.approx(1 / 9, abs=1e-5)


def test_a_gap_costs_what_is_missing():
    """One of eight voxels: T_sens = 7/8, T_prec = 1: 1 - 2 (7/8)/(15/8) = 1/15."""
    gap = drawn("..........", ".1111.111.", "..........")
    assert cldice(certain(gap, 2), LINE).item() == pytest.approx(1 / 15, abs=1e-5)


def test_a_line_beside_the_truth_finds_nothing():
    beside = drawn("..........", "..........", ".11111111.")
    assert cldice(certain(beside, 2), LINE).item() == pytest.approx(1, abs=1e-5)


def test_a_thick_prediction_around_the_line_costs_nothing():
    """Three rows of ten voxels have the middle row as their skeleton, without its ends: within the truth."""
    thick = drawn("1111111111", "1111111111", "1111111111")
    thick = torch.nn.functional.pad(thick, (2, 2, 2, 2))
    line = drawn("..............", "..............", "..............", "..1111111111..", *["." * 14] * 3)
    assert cldice(certain(thick, 2), line).item() == pytest.approx(0, abs=1e-5)


def test_iterations_must_reach_the_middle():
    """A tube five voxels thick, twice eroded, is a line: with less it has no skeleton, and any prediction will do."""
    thick = torch.zeros(1, 1, 9, 16, dtype=torch.int64)
    thick[..., 2:7, 2:14] = 1
    nothing = torch.zeros_like(thick)
    assert cldice(certain(nothing, 2), thick, iterations=2).item() == pytest.approx(1, abs=1e-5)
    assert cldice(certain(nothing, 2), thick, iterations=1).item() == pytest.approx(0, abs=1e-5)


def test_a_tube_in_3d_has_its_axis_as_skeleton():
    """3 x 3 x 8 voxels, predicted along the axis but for its ends, then beside it."""
    tube = torch.zeros(1, 1, 7, 7, 12, dtype=torch.int64)
    tube[:, :, 2:5, 2:5, 2:10] = 1
    axis, edge = torch.zeros_like(tube), torch.zeros_like(tube)
    axis[:, :, 3, 3, 3:9] = 1
    edge[:, :, 2, 2, 2:10] = 1
    assert cldice(certain(axis, 2), tube).item() == pytest.approx(0, abs=1e-5)
    assert cldice(certain(edge, 2), tube).item() == pytest.approx(1, abs=1e-5)


def test_the_mean_is_over_classes_that_a_patch_has():
    half = drawn("..........", ".1111.....", "..........")
    assert cldice(certain(half, 4), LINE).item() == pytest.approx(1 / 3, abs=1e-5)


@pytest.mark.parametrize(("shape", "iterations"), [((8, 9), 3), ((8, 9), 0), ((5, 6, 6), 2)])
def test_value_and_gradient_are_those_of_the_definition(shape, iterations):
    labels = random_labels(shape, batch=1)
    require_agreement(
        lambda given: cldice(given, labels, iterations=iterations),
        lambda exact: numpy_cldice(exact, labels, iterations),
        random_logits(labels),
    )


@pytest.mark.skipif(
    "include_background" not in signature(SoftclDiceLoss).parameters, reason="MONAI's loss is an older one"
)
@pytest.mark.parametrize("shape", [(8, 9), (5, 6, 6)])
def test_of_one_class_it_is_monais(shape):
    labels = random_labels(shape, classes=2)
    logits = random_logits(labels, classes=2)
    tiny = {"smooth_nr": 1e-6, "smooth_dr": 1e-6, "smooth": 1e-12}
    monai = SoftclDiceLoss(iter_=10, include_background=False, softmax=True, to_onehot_y=True, **tiny)
    assert cldice(logits, labels).item() == pytest.approx(monai(logits, labels).item(), rel=1e-5)
