"""The Hausdorff loss of erosions by hand and against its definition in NumPy."""

import numpy as np
import pytest
import torch
from drawn_targets import certain, drawn, foreground, random_labels, require_agreement, value_of
from scipy.ndimage import convolve, generate_binary_structure

from nnunet_ext.losses.hausdorff_erosion import HausdorffErosionTerm, cross, eroded
from nnunet_ext.losses.targets import OutputForm


def erosion(logits, labels, **options):
    return value_of(HausdorffErosionTerm(options.pop("form", OutputForm()), **options), logits, labels)


def cube(side, axes, margin=2):
    """(1, 1, *spatial), 1 in a cube with zeros around."""
    values = torch.zeros([1, 1] + [side + 2 * margin] * axes)
    values[(slice(None), slice(None), *[slice(margin, margin + side)] * axes)] = 1
    return values


def numpy_eroded(values, rescaling="double"):
    kernel = generate_binary_structure(values.ndim, 1).astype(float)
    left = np.maximum(convolve(values, kernel / kernel.sum(), mode="constant") - 0.5, 0)
    if rescaling == "double":
        return 2 * left
    return (left - left.min()) / (left.max() - left.min()) if left.max() > left.min() else left


def numpy_erosion(exact, labels, rescaling="double", erosions=10, alpha=2):
    losses = []
    for p, g in foreground(exact, labels):
        left = (p - g) ** 2
        total = np.zeros_like(left)
        for k in range(1, erosions + 1):
            left = numpy_eroded(left, rescaling)
            total += k**alpha * left
        losses.append(total.mean())
    return np.mean(losses)


# --- one erosion ---


@pytest.mark.parametrize(("axes", "neighbours"), [(1, 3), (2, 5), (3, 7)])
def test_the_kernel_is_a_voxel_and_its_neighbours_along_the_axes(axes, neighbours):
    kernel = cross(axes).numpy()
    np.testing.assert_allclose(kernel, generate_binary_structure(axes, 1) / neighbours, rtol=1e-6)


def test_the_erosion_of_a_square_by_hand():
    """The middle keeps all five: 2 (1 - 1/2) = 1. An edge keeps four: 2 (4/5 - 1/2) = 0.6, a corner three: 0.2."""
    once = eroded(cube(3, axes=2, margin=1))[0, 0]
    expected = [[0, 0, 0, 0, 0], [0, 0.2, 0.6, 0.2, 0], [0, 0.6, 1, 0.6, 0], [0, 0.2, 0.6, 0.2, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_allclose(once, expected, atol=1e-6)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_middle_of_a_cube_of_the_side_2k_plus_1_survives_k_erosions_in_full(axes, k):
    left = cube(2 * k + 1, axes)
    middle = (0, 0, *[k + 2] * axes)
    for _ in range(k):
        left = eroded(left)
        assert left[middle].item() == pytest.approx(1, abs=1e-5)
    assert eroded(left)[middle] < 0.99


@pytest.mark.parametrize("rescaling", ["double", "min-max"])
@pytest.mark.parametrize("axes", [2, 3])
def test_a_single_voxel_does_not_survive(rescaling, axes):
    assert not eroded(cube(1, axes), rescaling).any()


def test_what_lies_outside_of_the_patch_is_no_error():
    """A patch of errors: the corner has three of five."""
    once = eroded(torch.ones(1, 1, 5, 5))[0, 0]
    assert once[0, 0].item() == pytest.approx(0.2, abs=1e-6)
    assert once[2, 2].item() == pytest.approx(1, abs=1e-6)


def test_min_max_is_by_structure_and_patch():
    values = torch.cat([cube(3, 2), 0.9 * cube(3, 2)], dim=1)
    strong, weak = eroded(values, "min-max")[0]
    assert strong.max() == weak.max() == 1
    assert strong.min() == weak.min() == 0
    assert eroded(values)[0, 1].max().item() == pytest.approx(2 * (0.9 - 0.5), abs=1e-5)


# --- the loss ---

SQUARE = drawn(".....", ".111.", ".111.", ".111.", ".....")
NOTHING = torch.zeros_like(SQUARE)


def test_a_missed_square_by_hand():
    """Once eroded it is 1 + 4 0.6 + 4 0.2 = 4.2; twice, only the middle is left: 2 ((1 + 4 0.6)/5 - 1/2) = 0.36.

    Of three erosions nothing is left. 1^2 4.2 + 2^2 0.36 over 25 voxels.
    """
    assert erosion(certain(NOTHING, 2), SQUARE).item() == pytest.approx((4.2 + 4 * 0.36) / 25, rel=1e-5)


def test_min_max_stretches_what_is_left_of_the_square():
    """0.5, 0.3 and 0.1 become 1, 0.6 and 0.2 as before; what is left of the middle becomes 1 as well."""
    loss = erosion(certain(NOTHING, 2), SQUARE, rescaling="min-max")
    assert loss.item() == pytest.approx((4.2 + 4 * 1) / 25, rel=1e-5)


def test_a_missed_cube_by_hand():
    """Of 3 x 3 x 3 the middle keeps 1, a face 2 (6/7 - 1/2) = 5/7, an edge 3/7, a corner 1/7: 1 + 74/7.

    Twice eroded the middle is 2 ((1 + 6 5/7)/7 - 1/2) = 25/49; a face (5/7 + 1 + 4 3/7)/7 = 24/49 is below 1/2.
    """
    truth = cube(3, axes=3, margin=1).long()
    loss = erosion(certain(torch.zeros_like(truth), 2), truth)
    assert loss.item() == pytest.approx((1 + 74 / 7 + 4 * 25 / 49) / 125, rel=1e-5)


@pytest.mark.parametrize(("alpha", "second"), [(0, 1), (1, 2), (3, 8)])
def test_alpha_weighs_thick_errors(alpha, second):
    loss = erosion(certain(NOTHING, 2), SQUARE, alpha=alpha)
    assert loss.item() == pytest.approx((4.2 + second * 0.36) / 25, rel=1e-5)


def test_erosions_are_as_many_as_asked_for():
    assert erosion(certain(NOTHING, 2), SQUARE, erosions=1).item() == pytest.approx(4.2 / 25, rel=1e-5)


def test_errors_of_both_kinds_cost_the_same():
    missed = erosion(certain(NOTHING, 2), SQUARE)
    ring = 1 - SQUARE  # class 1 is all but the square; predicting it everywhere adds the square
    assert erosion(certain(torch.ones_like(ring), 2), ring).item() == pytest.approx(missed.item(), rel=1e-6)


def test_thin_errors_cost_nothing():
    """A line one voxel wide: the mean over the cross is 3/5, then (0.2 + 2 0.2)/5 is below 1/2."""
    truth = drawn(".......", "1111111", ".......")
    loss = erosion(certain(torch.zeros_like(truth), 2), truth)
    assert loss.item() == pytest.approx(5 * 0.2 / 21, rel=1e-5)  # the ends have two of five: nothing


@pytest.mark.parametrize(
    ("rescaling", "erosions"), [("double", 10), ("min-max", 3)]
)  # min-max stretches rounding, too
@pytest.mark.parametrize("shape", [(6, 7), (5, 4, 4)])
def test_value_and_gradient_are_those_of_the_definition(rescaling, erosions, shape):
    labels = random_labels(shape, batch=1)
    wrong = torch.zeros_like(labels).where(labels == 1, 1)
    logits = certain(wrong, 3, margin=6) + torch.randn((1, 3, *shape), generator=torch.Generator().manual_seed(0))
    require_agreement(
        lambda given: erosion(given, labels, rescaling=rescaling, erosions=erosions),
        lambda exact: numpy_erosion(exact, labels, rescaling, erosions),
        logits,
    )
