"""Moments of members with a weight for each class, against hand-worked cases and NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from nnunet_ext.inference.accumulation.class_weighted import moments_for
from nnunet_ext.inference.accumulation.entropy import entropy
from nnunet_ext.inference.accumulation.moments import Moments
from nnunet_ext.inference.accumulation.slabs import Slab


def weighted_moments(
    members: Sequence[torch.Tensor], weights: Sequence[Sequence[float]], *, regions: bool = False
) -> Moments:
    moments = moments_for(regions=regions, with_variance=True, class_weights=True)
    for member, of_member in zip(members, weights, strict=True):
        moments.add(member, torch.tensor(of_member))
    return moments


def voxel(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def binary_entropy(*probabilities: float) -> float:
    return -sum(p * math.log(p) for p in probabilities)


def random_members(count: int, shape: tuple[int, ...] = (3, 4, 5, 6)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.softmax(2 * torch.randn(shape, generator=generator), 0) for _ in range(count)]


def random_weights(members: int, outputs: int) -> list[list[float]]:
    values = torch.softmax(torch.randn((members, outputs), generator=torch.Generator().manual_seed(1)), 0)
    return values.tolist()


def test_classes_by_hand():
    """3/4 · 0.8 + 1/4 · 0.4 = 0.7 and 1/4 · 0.2 + 3/4 · 0.6 = 0.5, together 1.2: p̄ = (7/12, 5/12).

    The first member counts 0.6 + 0.05 = 0.65 of 1.2 and says (0.6, 0.05) / 0.65, the second (0.1, 0.45) / 0.55.
    """
    moments = weighted_moments([voxel(0.8, 0.2), voxel(0.4, 0.6)], [[0.75, 0.25], [0.25, 0.75]])
    assert moments.mean().flatten().tolist() == pytest.approx([7 / 12, 5 / 12], abs=1e-6)
    first, second = [0.6 / 0.65, 0.05 / 0.65], [0.1 / 0.55, 0.45 / 0.55]
    expected = (0.65 * binary_entropy(*first) + 0.55 * binary_entropy(*second)) / 1.2
    assert moments.expected_entropy().item() == pytest.approx(expected, abs=1e-6)
    information = binary_entropy(7 / 12, 5 / 12) - expected
    assert moments.mutual_information().item() == pytest.approx(information, abs=1e-6)
    variance = (0.65 * (first[0] - 7 / 12) ** 2 + 0.55 * (second[0] - 7 / 12) ** 2) / 1.2
    assert moments.variance()[0].item() == pytest.approx(variance, abs=1e-6)


def test_regions_by_hand():
    """3/4 · 0.8 + 1/4 · 0.4 = 0.7 of the first region, 1/4 · 0.2 + 3/4 · 0.6 = 0.5 of the second."""
    moments = weighted_moments([voxel(0.8, 0.2), voxel(0.4, 0.6)], [[0.75, 0.25], [0.25, 0.75]], regions=True)
    assert moments.mean().flatten().tolist() == pytest.approx([0.7, 0.5], abs=1e-6)
    first = 0.75 * binary_entropy(0.8, 0.2) + 0.25 * binary_entropy(0.4, 0.6)
    second = 0.25 * binary_entropy(0.2, 0.8) + 0.75 * binary_entropy(0.6, 0.4)
    assert moments.expected_entropy().item() == pytest.approx(first + second, abs=1e-6)
    total = binary_entropy(0.7, 0.3) + binary_entropy(0.5, 0.5)
    assert moments.predictive_entropy().item() == pytest.approx(total, abs=1e-6)
    variance = 0.75 * (0.8 - 0.7) ** 2 + 0.25 * (0.4 - 0.7) ** 2
    assert moments.variance()[0].item() == pytest.approx(variance, abs=1e-6)


@pytest.mark.parametrize("regions", [False, True])
def test_equal_weights_change_nothing(regions):
    members = random_members(4)
    plain = Moments(regions=regions)
    for member in members:
        plain.add(member)
    weighted = weighted_moments(members, [[0.25] * 3] * 4, regions=regions)
    for name in ("mean", "expected_entropy", "mutual_information", "variance"):
        torch.testing.assert_close(getattr(weighted, name)(), getattr(plain, name)(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("regions", [False, True])
def test_the_members_disagree_by_no_less_than_nothing(regions):
    """Not only after the clipping: H(p̄) is above the expected entropy everywhere."""
    members = random_members(5)
    moments = weighted_moments(members, random_weights(5, 3), regions=regions)
    assert (entropy(moments.mean(), regions=regions) - moments.expected_entropy()).min() > -1e-6
    if not regions:
        torch.testing.assert_close(moments.mean().sum(0), torch.ones(4, 5, 6))


@pytest.mark.parametrize("regions", [False, True])
def test_slabs_and_parts_are_those_of_the_volume(regions):
    members, weights = random_members(3), random_weights(3, 3)
    whole = weighted_moments(members, weights, regions=regions)
    in_slabs = moments_for(regions=regions, with_variance=True, class_weights=True)
    for member, of_member in zip(members, weights, strict=True):
        in_slabs.begin_member((3, 4, 5, 6), torch.tensor(of_member))
        for part in (slice(0, 1), slice(1, 4)):
            in_slabs.add_slab(Slab((part, slice(None), slice(None)), member[:, part]))
    where = (slice(2, 4), slice(0, 5), slice(1, 3))
    for name in ("mean", "expected_entropy", "mutual_information", "variance"):
        torch.testing.assert_close(getattr(in_slabs, name)(), getattr(whole, name)())
        torch.testing.assert_close(getattr(whole.part(where), name)(), getattr(whole, name)()[(..., *where)])


@pytest.mark.parametrize("weight", [[0.5], [0.5, 0.0], [0.5, float("nan")]])
def test_a_member_needs_a_positive_weight_for_each_class(weight):
    moments = moments_for(regions=False, with_variance=True, class_weights=True)
    with pytest.raises(ValueError, match="a weight above 0 for each of 2 outputs"):
        moments.add(voxel(0.5, 0.5), torch.tensor(weight))
