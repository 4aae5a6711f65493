"""A chain of image changes: identity, inverse, bounds, and one step that goes up."""

import math

import pytest
import torch
from torch.nn import functional as F

from nnunet_ext.augmentation.adversarial import (
    Bounds,
    Chain,
    affine_displacement,
    ascended,
    changed,
    displacement,
    random_chain,
    rotation,
    undone,
    warped,
)

GRIDS = [(2, 1, 24, 32), (2, 1, 12, 20, 16)]


def smooth_image(shape):
    """A blurred box."""
    image = torch.zeros(shape)
    image[(..., *(slice(length // 4, 3 * length // 4) for length in shape[2:]))] = 1
    pool = F.avg_pool2d if len(shape) == 4 else F.avg_pool3d
    for _ in range(3):
        image = pool(image, 3, 1, 1)
    return image


def of_geometry(chain):
    """The same chain without noise and bias."""
    return Chain(torch.zeros_like(chain.noise), torch.zeros_like(chain.bias), chain.velocity, chain.affine)


@pytest.mark.parametrize("shape", GRIDS)
def test_a_chain_of_zeros_changes_nothing(shape):
    image = smooth_image(shape)
    zeros = Chain(*(torch.zeros_like(tensor) for tensor in random_chain(image, Bounds()).tensors))
    torch.testing.assert_close(changed(image, zeros), image, atol=1e-5, rtol=0)
    torch.testing.assert_close(undone(image, zeros), image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", GRIDS)
def test_undone_brings_every_voxel_back_that_stayed_in_the_image(shape):
    torch.manual_seed(0)
    image = smooth_image(shape)
    chain = of_geometry(random_chain(image, Bounds(deformation_voxels=0.5, rotation_degrees=10, scale=0.1)))
    kept = undone(torch.ones_like(image), chain) > 0.999
    there, back = changed(image, chain), undone(changed(image, chain), chain)
    assert kept.float().mean() > 0.5
    assert (there - image)[kept].abs().mean() > 3 * (back - image)[kept].abs().mean()


def test_a_quarter_turn_and_a_shift_by_hand():
    """A quarter turn reads (0, 0) from (3, 0) of the indices (y, x); a shift of 1/4 of 4 voxels reads one further."""
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    turned = warped(image, affine_displacement(torch.tensor([[math.pi / 2, 0, 0, 0, 0]]), (4, 4)))
    torch.testing.assert_close(turned, torch.rot90(image, -1, dims=(2, 3)), atol=1e-4, rtol=0)
    shifted = warped(image, affine_displacement(torch.tensor([[0, 0, 0, 0, 0.25]]), (4, 4)))
    torch.testing.assert_close(shifted[..., :-1], image[..., 1:], atol=1e-4, rtol=0)
    assert not shifted[..., -1].any()


def test_a_constant_velocity_moves_by_itself():
    field = displacement(torch.full((1, 2, 4, 4), 1.5), (9, 9))
    torch.testing.assert_close(field, torch.full((1, 2, 9, 9), 1.5))


def test_rotations_keep_lengths_and_angles():
    matrices = rotation(torch.tensor([[0.3, -0.2, 0.5]]), 3)
    torch.testing.assert_close(matrices @ matrices.transpose(1, 2), torch.eye(3)[None], atol=1e-6, rtol=0)
    assert torch.linalg.det(matrices).item() == pytest.approx(1)


@pytest.mark.parametrize("shape", GRIDS)
def test_parameters_stay_within_their_bounds(shape):
    torch.manual_seed(0)
    bounds = Bounds()
    chain = random_chain(torch.randn(shape), bounds)
    gradients = [100 * torch.randn_like(tensor) for tensor in chain.tensors]
    for found in (chain, ascended(chain, gradients, bounds)):
        torch.testing.assert_close(found.noise.flatten(start_dim=1).norm(dim=1), torch.ones(2))
        assert found.bias.abs().max() <= 0.3
        assert found.velocity.abs().max() <= 1.5
        turns = 1 if len(shape) == 4 else 3
        limits = [math.radians(30)] * turns + [0.2] * (len(shape) - 2) + [0.1] * (len(shape) - 2)
        assert (found.affine.abs() <= torch.tensor(limits) + 1e-6).all()


def test_planar_changes_move_nothing_between_slices():
    torch.manual_seed(0)
    image = torch.zeros(1, 1, 4, 16, 16)
    image[:, :, 2] = 1  # one bright slice
    chain = of_geometry(random_chain(image, Bounds(planar=True)))
    assert not changed(image, chain)[:, :, [0, 1, 3]].any()


def test_a_step_goes_along_the_gradient_and_leaves_a_parameter_without_one():
    chain = random_chain(torch.zeros(1, 1, 8, 8), Bounds())
    gradients = [torch.zeros_like(tensor) for tensor in chain.tensors]
    gradients[1][0, 0, 2, 3] = 0.001
    found = ascended(chain, gradients, Bounds())
    for before, after in zip(chain.tensors, found.tensors, strict=True):
        if before is not chain.bias:
            torch.testing.assert_close(after, before)
    assert found.bias[0, 0, 2, 3] == pytest.approx(min(chain.bias[0, 0, 2, 3].item() + 0.3, 0.3))


@pytest.mark.parametrize("broken", [math.inf, -math.inf, math.nan])
def test_a_gradient_that_is_not_finite_moves_nothing(broken):
    """Of the first of two samples; the bias field of the second moves by its bound, 0.3, from 0."""
    start = random_chain(torch.zeros(2, 1, 8, 8), Bounds())
    chain = Chain(start.noise, torch.zeros_like(start.bias), start.velocity, start.affine)
    gradients = [torch.ones_like(tensor) for tensor in chain.tensors]
    for gradient in gradients:
        gradient[0].view(-1)[1] = broken
    found = ascended(chain, gradients, Bounds())
    for before, after in zip(chain.tensors, found.tensors, strict=True):
        torch.testing.assert_close(after[0], before[0])
    torch.testing.assert_close(found.bias[1], torch.full_like(found.bias[1], 0.3))
