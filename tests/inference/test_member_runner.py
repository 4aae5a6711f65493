"""A member over an image: a network tile by tile, a mixture over the whole volume, a draw that stays one network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_ext.architectures.dropout_draws import with_drawn_dropout
from nnunet_ext.architectures.over_volumes import over_volumes
from nnunet_ext.architectures.streaming import FixedWeights, MemoryWeights, StreamingNetwork
from nnunet_ext.inference.member_runner import MemberRunner
from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.runtimes.batch_size import BatchSize
from nnunet_ext.inference.runtimes.precision import SINGLE
from nnunet_ext.inference.runtimes.torch_runtime import TorchRuntime
from nnunet_ext.inference.sliding_window import sliding_window_logits, tile_image
from nnunet_ext.inference.transforms.flip import IDENTITY, Flip, flips
from nnunet_ext.inference.transforms.rot90 import Rot90
from nnunet_ext.inference.transforms.rotate import Rotation
from nnunet_ext.inference.transforms.scale import Scaling
from nnunet_ext.inference.transforms.transform import Transform
from nnunet_ext.models.members import Member

CPU = torch.device("cpu")


def runner_of(network: nn.Module) -> MemberRunner:
    """Runs a network whose weights are there already."""
    model: Any = SimpleNamespace(network=network, volumes=over_volumes(network), load=lambda member: None)
    return MemberRunner(model, TorchRuntime(model, CPU, SINGLE, lambda *_: BatchSize(8)))


def step(*transforms: Transform, seed: int | None = None) -> Pass:
    member = Member("m", Path("m.pth"), "", "nnUNetTrainer", "2d", None, dropout_seed=seed)
    return Pass("m", member, transforms or (IDENTITY,), 1.0)


def logits_over(
    network: nn.Module, image: torch.Tensor, patch: tuple[int, ...], *transforms: Transform
) -> torch.Tensor:
    return runner_of(network).logits(step(*transforms), tile_image(image, patch))


def mixture(conv_op, *, classifiers=2, regions=False, rule=None, mixture="log"):
    """Classifiers that see single voxels, so that the borders of tiles do not matter."""
    torch.manual_seed(3)
    members = [conv_op(1, 3, kernel_size=1) for _ in range(classifiers)]
    for member in members:
        nn.init.normal_(member.weight, std=3)
    network = StreamingNetwork(members, rule or MemoryWeights(kappa=10), mixture).eval()
    network.declare_regions(regions)
    return network


def volume(*shape, seed=0):
    return torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed))


def test_a_single_network_runs_tile_by_tile():
    network, tiled = nn.Conv2d(1, 2, kernel_size=1), tile_image(volume(3, 8, 8), (4, 4))
    with torch.inference_mode():
        expected = sliding_window_logits(network, tiled, [IDENTITY], batch_size=BatchSize(2))
    torch.testing.assert_close(runner_of(network).logits(step(), tiled), expected)


# --- mixtures ---


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize(
    ("conv_op", "patch"),
    [
        (nn.Conv2d, (8, 8)),  # slice by slice: the network alone would remember one slice only
        (nn.Conv2d, (4, 4)),
        (nn.Conv3d, (6, 8, 8)),  # one tile
        (nn.Conv3d, (2, 4, 4)),  # a tile would remember two slices only
    ],
)
def test_the_memory_is_that_of_all_slices_whatever_the_tiles_are(conv_op, patch, regions):
    network, image = mixture(conv_op, regions=regions), volume(6, 8, 8)
    with torch.no_grad():
        whole = network(image[None])[0]
    torch.testing.assert_close(logits_over(network, image, patch), whole, atol=1e-4, rtol=1e-4)


def test_tile_by_tile_the_memory_would_be_another():
    # this is what stock nnU-Net's predictor gets
    network, tiled = mixture(nn.Conv2d), tile_image(volume(6, 8, 8), (8, 8))
    by_tiles = sliding_window_logits(network, tiled, [IDENTITY], batch_size=BatchSize(8))
    assert (runner_of(network).logits(step(), tiled) - by_tiles).abs().max() > 0.1


def test_fixed_weights_give_the_same_tile_by_tile_and_over_the_volume():
    network, tiled = mixture(nn.Conv2d, rule=FixedWeights([0.7, 0.3])), tile_image(volume(5, 8, 8), (8, 8))
    by_tiles = sliding_window_logits(network, tiled, [IDENTITY], batch_size=BatchSize(8))
    torch.testing.assert_close(runner_of(network).logits(step(), tiled), by_tiles, atol=1e-4, rtol=1e-4)


def test_padding_to_the_patch_does_not_enter_the_memory():
    # a patch of ten slices: nnU-Net pads the four of the image around
    image, network = volume(4, 8, 8), mixture(nn.Conv3d)
    padded = logits_over(network, image, (10, 8, 8))
    torch.testing.assert_close(padded, logits_over(network, image, (4, 8, 8)), atol=1e-4, rtol=1e-4)


def test_blank_slices_of_the_image_are_part_of_the_memory():
    """Two blank slices after four others belong to the image; all six share the weights (arXiv 2502.09269, Eq. 3)."""
    image, network = torch.cat([volume(4, 8, 8), torch.zeros(1, 2, 8, 8)], dim=1), mixture(nn.Conv3d)
    with torch.no_grad():
        logits = torch.stack([classifier(image[None]) for classifier in network.classifiers])  # (K, 1, C, D, H, W)
    probabilities = torch.softmax(logits, dim=2).double().numpy()
    decidedness = 10 * probabilities.mean(axis=3, keepdims=True).var(axis=2, ddof=1, keepdims=True)
    weights = np.exp(decidedness) / np.exp(decidedness).sum(axis=0)
    expected = (weights * probabilities).sum(axis=0)[0]
    found = torch.softmax(logits_over(network, image, (6, 8, 8)), dim=0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_flips_are_averaged_as_logits_within_each_classifier():
    # an asymmetric classifier, mirrored: logits z(x) and z of the mirrored image mirrored back, by NumPy
    torch.manual_seed(0)
    member = nn.Conv2d(1, 2, kernel_size=3, padding=1)
    network = StreamingNetwork([member], MemoryWeights()).eval()
    image = volume(1, 8, 8)
    found = logits_over(network, image, (8, 8), IDENTITY, Flip((1,)))
    with torch.no_grad():
        logits = (member(image[:, 0][None])[0] + member(image[:, 0][None].flip(3))[0].flip(2)).numpy() / 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    np.testing.assert_allclose(torch.softmax(found[:, 0], dim=0).numpy(), probabilities, atol=1e-5)


def test_the_papers_mixture_returns_probabilities():
    found = logits_over(mixture(nn.Conv2d, mixture="paper"), volume(3, 8, 8), (8, 8))
    torch.testing.assert_close(found.sum(dim=0), torch.ones(3, 8, 8))


def test_only_mixtures_need_all_tiles():
    assert runner_of(mixture(nn.Conv2d)).needs_all_tiles
    assert not runner_of(nn.Conv2d(1, 2, kernel_size=1)).needs_all_tiles


# --- draws with dropout ---


@pytest.fixture
def dropping() -> nn.Module:
    """Voxels on their own, with dropout between two layers: flips and tiles can change nothing but the masks."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, kernel_size=1), nn.ReLU(), nn.Dropout2d(0.5), nn.Conv2d(8, 2, 1))
    return with_drawn_dropout(network).eval()


def variance_of_draws(network: nn.Module, transforms: list[Flip]) -> float:
    """Of the second class's probability over 60 draws, mean over the voxels of an image of one grey value."""
    runner, tiled = runner_of(network), tile_image(torch.ones(1, 2, 8, 8), (4, 4))
    draws = [torch.softmax(runner.logits(step(*transforms, seed=seed), tiled), 0)[1] for seed in range(60)]
    return float(torch.stack(draws).var(dim=0, correction=0).mean())


def test_four_flips_leave_the_variance_over_the_draws_as_it_is(dropping):
    """A mean of four masks within a draw would have a quarter of it."""
    single = variance_of_draws(dropping, [IDENTITY])
    assert single > 1e-3
    assert variance_of_draws(dropping, flips((0, 1))) == pytest.approx(single, rel=1e-5)


def test_a_draw_is_the_same_network_in_all_tiles_and_slices(dropping):
    """The image is the same everywhere, so one network predicts the same everywhere."""
    found = runner_of(dropping).logits(step(seed=1), tile_image(torch.ones(1, 3, 8, 12), (4, 4)))
    torch.testing.assert_close(found, found[:, :1, :1, :1].expand_as(found))


def test_after_a_draw_the_network_is_whole_again(dropping):
    runner, tiled = runner_of(dropping), tile_image(torch.ones(1, 1, 4, 4), (4, 4))
    before = runner.logits(step(), tiled)
    assert not torch.equal(runner.logits(step(seed=1), tiled), before)
    assert torch.equal(runner.logits(step(), tiled), before)


# --- transforms of the whole volume ---


class Echo(nn.Module):
    """Two classes: the image itself and its double."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([image, 2 * image], dim=1)


class BorderDetector(nn.Module):
    """The logit is 1 in the outermost voxels of what the network is shown, and 0 elsewhere."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        neighbours = nn.functional.avg_pool2d(torch.ones_like(image), 3, stride=1, padding=1)  # counts zeros outside
        return (neighbours < 1).float()


SMALL = (Rotation(10), Rotation(-10), Scaling(0.95), Scaling(1.05))


def smooth(*shape: int) -> torch.Tensor:
    """(1, *shape), a wave along the rows with a period of 32 voxels."""
    return (torch.arange(shape[-1]) * (2 * np.pi / 32)).sin().expand(1, *shape).contiguous()


@pytest.mark.parametrize("patch", [(24, 24), (64, 64)])  # smaller than the image, and padded
def test_everything_averaged_is_the_image_itself_within_interpolation(patch):
    """Interpolating a sine errs by 0.005 along an axis; undone, and times 2 of the second class: 0.02."""
    image = smooth(2, 48, 56)
    found = logits_over(Echo(), image, patch, *flips((0, 1)), Rot90(1), *SMALL)
    torch.testing.assert_close(found, torch.cat([image, 2 * image]), atol=0.02, rtol=0)


def test_the_border_of_a_transformed_volume_leaves_no_trace_inside_the_image():
    """The network sees a border in every copy, and that of a rotated copy crosses the image.

    Its vote fades over 8 voxels and is at most 1/8 there, among five: with a full vote the trace would be a fifth.
    """
    image, inside = smooth(1, 64, 64), (0, 0, slice(4, -4), slice(4, -4))
    found = logits_over(BorderDetector(), image, (64, 64), IDENTITY, *SMALL)
    assert found[inside].max() < 0.03
    alone = logits_over(BorderDetector(), image, (64, 64), Rotation(10))
    assert alone[inside].max() > 0.9


def test_an_observer_gets_each_transform_alone_and_the_mean_stays():
    seen: dict[str, torch.Tensor] = {}
    transforms = (IDENTITY, Flip((1,)), Rot90(1), Rotation(10))
    runner, tiled = runner_of(nn.Conv2d(1, 2, 3, padding=1)), tile_image(volume(2, 24, 24), (16, 16))
    mean = runner.logits(step(*transforms), tiled)
    observed = runner.logits(
        step(*transforms), tiled, None, lambda transform, logits: seen.update({transform.name: logits.clone()})
    )
    torch.testing.assert_close(observed, mean, atol=1e-5, rtol=0)
    assert list(seen) == [transform.name for transform in transforms]
    for transform in transforms:
        torch.testing.assert_close(seen[transform.name], runner.logits(step(transform), tiled), atol=1e-5, rtol=0)


def test_a_mixture_is_made_of_means_over_the_transforms():
    """Voxels on their own in an image of one value: rotating it changes no classifier, so the mixture stays."""
    network, image = mixture(nn.Conv2d), torch.full((1, 3, 16, 16), 0.5)
    plain, turned = (logits_over(network, image, (16, 16), *chosen) for chosen in ((IDENTITY,), (IDENTITY, *SMALL)))
    torch.testing.assert_close(turned, plain, atol=1e-5, rtol=0)


def test_only_a_pass_of_one_transform_may_not_see_all_voxels():
    shape = (2, 40, 40)
    assert step(IDENTITY, Rotation(10)).field_of_view(shape, CPU) is None
    assert step(Rot90(1)).field_of_view(shape, CPU) is None
    assert step(Rotation(10)).field_of_view(shape, CPU).min() == 0
