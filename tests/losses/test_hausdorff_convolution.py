"""The Hausdorff loss of convolutions with balls by hand and against its definition in NumPy."""

import numpy as np
import pytest
import torch
from drawn_targets import certain, drawn, foreground, random_labels, random_logits, require_agreement, value_of
from scipy.ndimage import convolve

from nnunet_ext.losses.hausdorff_convolution import HausdorffConvTerm, ball, mean_over_ball
from nnunet_ext.losses.targets import OutputForm

POINT = drawn(".....", ".....", "..1..", ".....", ".....")


def convolution(logits, labels, **options):
    return value_of(HausdorffConvTerm(options.pop("form", OutputForm()), **options), logits, labels)


def numpy_ball(axes, radius, reach=None):
    """With a reach, what is left of it without the voxels that are further away along each axis."""
    steps = np.indices([2 * radius + 1] * axes) - radius
    inside = (np.sqrt((steps**2).sum(axis=0)) <= radius).astype(float)
    if reach:
        inside = inside[tuple(slice(radius - furthest, radius + furthest + 1) for furthest in reach)]
    return inside / inside.sum()


def numpy_convolution(exact, labels, radii, alpha=2):
    """h(B g^c) f_pg + h(B g) f_gp + h(B p^c) f_gp + h(B p) f_pg."""
    losses = []
    for p, g in foreground(exact, labels):
        f_gp, f_pg = (g - p) ** 2 * g, (p - g) ** 2 * p
        total = np.zeros_like(p)
        for radius in radii:
            of_pc, of_p, of_gc, of_g = (
                np.maximum(convolve(x, numpy_ball(p.ndim, radius), mode="nearest") - 0.5, 0)
                for x in (1 - p, p, 1 - g, g)
            )
            total += radius**alpha * (of_gc * f_pg + of_g * f_gp + of_pc * f_gp + of_p * f_pg)
        losses.append(total.mean())
    return np.mean(losses)


# --- balls ---


@pytest.mark.parametrize(
    ("axes", "radius", "voxels"), [(1, 3, 7), (2, 1, 5), (2, 2, 13), (2, 3, 29), (3, 1, 7), (3, 2, 33), (3, 3, 123)]
)
def test_balls_hold_what_is_no_further_than_the_radius(axes, radius, voxels):
    """13 = the square of 3 x 3 and four tips, 33 = the cube of 3 x 3 x 3 and six tips."""
    kernel = ball(radius, [radius] * axes)
    assert kernel.shape == (2 * radius + 1,) * axes
    assert (kernel > 0).sum() == voxels
    np.testing.assert_allclose(kernel, numpy_ball(axes, radius), rtol=1e-6)


@pytest.mark.parametrize(("shape", "radius"), [((9, 8), 3), ((7, 7), 3), ((5, 6, 7), 2), ((12,), 4)])
def test_the_mean_over_a_ball_is_a_convolution_that_repeats_the_border(shape, radius):
    values = np.random.default_rng(0).random((2, 3, *shape))
    found = mean_over_ball(torch.from_numpy(values).float(), radius)
    for n in range(2):
        for c in range(3):
            expected = convolve(values[n, c], numpy_ball(len(shape), radius), mode="nearest")
            np.testing.assert_allclose(found[n, c], expected, atol=1e-6)


def test_the_mean_over_a_ball_that_is_cut_along_short_axes():
    """Three voxels fit along the axis of 4, one along that of 2: the ball reaches 1 and 0 voxels there."""
    values = np.random.default_rng(0).random((1, 1, 4, 2, 7))
    found = mean_over_ball(torch.from_numpy(values).float(), 3)[0, 0]
    expected = convolve(values[0, 0], numpy_ball(3, 3, reach=(1, 0, 3)), mode="nearest")
    np.testing.assert_allclose(found, expected, atol=1e-6)


# --- the loss ---


def test_a_missed_point_by_hand():
    """One of five voxels around it is the truth: h(1/5) = 0. All of them are not predicted: h(1) = 1/2."""
    loss = convolution(certain(torch.zeros_like(POINT), 2), POINT, radii=(1,))
    assert loss.item() == pytest.approx(0.5 / 25, rel=1e-5)


def test_a_point_predicted_everywhere_by_hand():
    """24 voxels are added. h(B p) = 1/2 in all, h(B g^c) = 1/2 in 20 of them and 4/5 - 1/2 beside the point."""
    loss = convolution(certain(torch.ones_like(POINT), 2), POINT, radii=(1,))
    assert loss.item() == pytest.approx((24 * 0.5 + 20 * 0.5 + 4 * 0.3) / 25, rel=1e-5)


@pytest.mark.parametrize(("alpha", "expected"), [(0, 0.5 + 0.5), (1, 0.5 + 2 * 0.5), (2, 0.5 + 4 * 0.5)])
def test_radii_add_up_with_their_weight(alpha, expected):
    loss = convolution(certain(torch.zeros_like(POINT), 2), POINT, radii=(1, 2), alpha=alpha)
    assert loss.item() == pytest.approx(expected / 25, rel=1e-5)


def test_a_missed_square_counts_from_both_sides():
    """Middle: h(B g) = 1/2; edges 4/5 - 1/2 = 0.3; corners 3/5 - 1/2 = 0.1. h(B p^c) = 1/2 for all nine."""
    truth = drawn(".....", ".111.", ".111.", ".111.", ".....")
    loss = convolution(certain(torch.zeros_like(truth), 2), truth, radii=(1,))
    assert loss.item() == pytest.approx((0.5 + 4 * 0.3 + 4 * 0.1 + 9 * 0.5) / 25, rel=1e-5)


def test_a_far_error_counts_in_a_stack_of_three_slices():
    """A square of 20 x 20 is added, further than 18 voxels from the truth: h(B_r g^c) = 1/2 in it for every radius.

    The balls around the added voxels hold more: h(B_r p) is 0 or above. sum r^2 = 9 (1 + 4 + 9 + 16 + 25 + 36) = 819.
    """
    truth = torch.zeros(1, 1, 3, 64, 64, dtype=torch.int64)
    truth[..., :20, :20] = 1
    said = truth.clone()
    said[..., 44:, 44:] = 1
    loss = convolution(certain(said, 2), truth)
    assert loss.item() >= 0.999 * 819 * 0.5 * 20 * 20 / (64 * 64)


@pytest.mark.parametrize("slices", [1, 2])
def test_a_stack_of_one_or_two_slices_counts_within_its_slices(slices):
    stack = POINT[:, :, None].expand(-1, -1, slices, -1, -1)
    loss = convolution(certain(torch.zeros_like(stack), 2), stack, radii=(1, 2))
    assert loss.item() == pytest.approx((1 + 4) * 0.5 / 25, rel=1e-5)  # as in test_radii_add_up_with_their_weight


def test_radii_that_fit_along_no_axis_are_left_out():
    """A ball of the radius 2 is five voxels wide, as the patch is; one of 3 is seven."""
    logits = certain(torch.zeros_like(POINT), 2)
    fitting = convolution(logits, POINT, radii=(1, 2))
    assert convolution(logits, POINT, radii=(1, 2, 3, 18)).item() == fitting.item()
    assert convolution(logits, POINT, radii=(3,)).item() == 0


@pytest.mark.parametrize(("shape", "radii"), [((6, 7), (1, 2)), ((5, 5, 5), (2,))])
def test_value_and_gradient_are_those_of_the_definition(shape, radii):
    labels = random_labels(shape, classes=2, batch=1)
    logits = random_logits(labels, classes=2)
    require_agreement(
        lambda given: convolution(given, labels, radii=radii),
        lambda exact: numpy_convolution(exact, labels, radii),
        logits,
    )
