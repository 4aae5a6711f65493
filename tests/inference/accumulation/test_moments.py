"""Running moments against hand-worked cases and against NumPy in double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from nnunet_ext.inference.accumulation.entropy import entropy, largest_entropy
from nnunet_ext.inference.accumulation.moments import Moments
from nnunet_ext.inference.accumulation.slabs import Slab

LN_2 = math.log(2)


def moments_of(
    members: Sequence[torch.Tensor], weights: Sequence[float | torch.Tensor] | None = None, *, regions: bool = False
) -> Moments:
    moments = Moments(regions=regions)
    for member, weight in zip(members, weights or [1.0] * len(members), strict=True):
        moments.add(member, weight)
    return moments


def random_members(
    count: int, *, sharpness: float = 1.0, shape: tuple[int, ...] = (4, 3, 5, 6)
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.softmax(sharpness * torch.randn((4, 3, 5, 6), generator=generator), 0) for _ in range(count)]


def numpy_entropy(probabilities: np.ndarray) -> np.ndarray:
    """−Σ p ln p over the first axis in double precision, with 0 ln 0 = 0."""
    logarithms = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return -(probabilities * logarithms).sum(0)


# --- by hand ---


def test_two_certain_members_that_contradict_each_other():
    """p̄ = (1/2, 1/2): H = ln 2. Each member is certain: E[H] = 0, so MI = ln 2. (1 − 1/2)² = 1/4."""
    moments = moments_of([torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])])
    assert moments.mean().tolist() == [[0.5], [0.5]]
    assert moments.predictive_entropy().item() == pytest.approx(LN_2, abs=1e-7)
    assert moments.expected_entropy().item() == 0
    assert moments.mutual_information().item() == pytest.approx(LN_2, abs=1e-7)
    assert moments.variance().tolist() == [[0.25], [0.25]]
    assert moments.members == 2


def test_identical_members_disagree_about_nothing():
    """H(1/2, 1/4, 1/4) = 1/2 ln 2 + 2 · 1/4 ln 4 = 3/2 ln 2, and so is its mean over members."""
    moments = moments_of([torch.tensor([0.5, 0.25, 0.25])[:, None]] * 3)
    assert moments.predictive_entropy().item() == pytest.approx(1.5 * LN_2, abs=1e-6)
    assert moments.expected_entropy().item() == pytest.approx(1.5 * LN_2, abs=1e-6)
    assert moments.mutual_information().item() == 0
    assert moments.variance().flatten().tolist() == [0, 0, 0]


def test_a_probability_of_zero_has_no_entropy_and_is_not_nan():
    moments = moments_of([torch.tensor([1.0, 0.0, 0.0])[:, None]] * 2)
    for values in (moments.predictive_entropy(), moments.expected_entropy(), moments.mutual_information()):
        assert values.tolist() == [0]


def test_weights_count_as_repetitions_do():
    """Weights 1 and 3: p̄ = (1/4, 3/4), variance 1/4 · 3/4 = 3/16, as if the second member came three times."""
    first, second = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    weighted = moments_of([first, second], [1.0, 3.0])
    assert weighted.mean().flatten().tolist() == [0.25, 0.75]
    assert weighted.variance().flatten().tolist() == pytest.approx([3 / 16, 3 / 16])
    repeated = moments_of([first, second, second, second])
    torch.testing.assert_close(weighted.mean(), repeated.mean())
    torch.testing.assert_close(weighted.variance(), repeated.variance())
    torch.testing.assert_close(weighted.mutual_information(), repeated.mutual_information())


def test_entropy_of_regions_is_the_sum_of_their_binary_entropies():
    """One region at 1/2: ln 2. One at 1/4: 1/4 ln 4 + 3/4 ln(4/3). One at 1: nothing."""
    moments = moments_of([torch.tensor([0.5, 0.25, 1.0])[:, None]], regions=True)
    expected = LN_2 + 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert moments.predictive_entropy().item() == pytest.approx(expected, abs=1e-6)
    assert moments.largest_entropy() == pytest.approx(3 * LN_2)


def test_largest_entropy_is_that_of_even_odds():
    assert largest_entropy(4, regions=False) == pytest.approx(entropy(torch.full((4, 1), 0.25)).item(), abs=1e-6)
    assert largest_entropy(4, regions=True) == pytest.approx(4 * LN_2)


# --- against NumPy ---


@pytest.mark.parametrize("weights", [None, [0.2, 5.0, 1.0, 1.0, 3.0]])
def test_all_moments_against_numpy(weights):
    members = random_members(5, sharpness=3)
    moments = moments_of(members, weights)
    stack = np.stack([member.double().numpy() for member in members])  # (M, C, *spatial)
    mean = np.average(stack, axis=0, weights=weights)
    expected_entropy = np.average([numpy_entropy(member) for member in stack], axis=0, weights=weights)
    divergence = np.average(  # KL(p_m ‖ p̄) of every member
        [(member * np.log(member / mean)).sum(0) for member in stack], axis=0, weights=weights
    )
    np.testing.assert_allclose(moments.mean(), mean, atol=1e-6)
    np.testing.assert_allclose(moments.predictive_entropy(), numpy_entropy(mean), atol=2e-6)
    np.testing.assert_allclose(moments.expected_entropy(), expected_entropy, atol=2e-6)
    np.testing.assert_allclose(moments.mutual_information(), divergence, atol=2e-6)
    np.testing.assert_allclose(
        moments.variance(), np.average((stack - mean) ** 2, axis=0, weights=weights), atol=1e-6
    )


def test_moments_of_regions_against_numpy():
    generator = torch.Generator().manual_seed(0)
    members = [torch.rand((3, 4, 5), generator=generator) for _ in range(4)]
    moments = moments_of(members, regions=True)
    stack = np.stack([member.double().numpy() for member in members])  # (M, R, *spatial)

    def binary_entropies(probabilities: np.ndarray) -> np.ndarray:
        return numpy_entropy(np.stack([probabilities, 1 - probabilities])).sum(0)

    mean = stack.mean(0)
    expected_entropy = np.mean([binary_entropies(member) for member in stack], axis=0)
    np.testing.assert_allclose(moments.predictive_entropy(), binary_entropies(mean), atol=2e-6)
    np.testing.assert_allclose(moments.expected_entropy(), expected_entropy, atol=2e-6)
    np.testing.assert_allclose(moments.mutual_information(), binary_entropies(mean) - expected_entropy, atol=4e-6)


# --- numbers that must not go wrong ---


@pytest.mark.parametrize(("sharpness", "spread"), [(1, 1e-4), (30, 1e-2), (30, 1)])
def test_thirty_members_never_give_a_negative_mutual_information_or_variance(sharpness, spread):
    """Members that agree have a mutual information of 0, on either side of which rounding may fall."""
    generator = torch.Generator().manual_seed(0)
    common = sharpness * torch.randn((4, 20, 20, 20), generator=generator)
    moments = moments_of(
        [torch.softmax(common + spread * torch.randn(common.shape, generator=generator), 0) for _ in range(30)]
    )
    information = moments.mutual_information()
    assert information.min() >= 0
    # the clamp at 0 only hides rounding: without it nothing is further below 0 than single precision is exact
    assert -1e-6 < (moments.predictive_entropy() - moments.expected_entropy()).min() < 0
    assert moments.variance().min() >= 0
    assert (information - moments.predictive_entropy()).max() <= 1e-6


def test_thirty_nearly_equal_members_have_the_variance_of_numpy():
    """Sums of squares in single precision would be off by 1e-7 here, a thousand times the variance."""
    generator = torch.Generator().manual_seed(0)
    first = 0.9 + 1e-5 * torch.randn((30, 1000), generator=generator)
    members = [torch.stack([row, 1 - row]) for row in first]
    expected = torch.stack(members).double().var(0, unbiased=False)
    torch.testing.assert_close(moments_of(members).variance().double(), expected, rtol=0.05, atol=1e-12)


def test_the_order_of_the_members_does_not_matter():
    members = random_members(6)
    forward, backward = moments_of(members), moments_of(members[::-1])
    for name in ("mean", "predictive_entropy", "expected_entropy", "mutual_information", "variance"):
        torch.testing.assert_close(getattr(forward, name)(), getattr(backward, name)(), atol=1e-6, rtol=0)


def test_half_precision_members_are_summed_in_single_precision():
    """In half precision the mean of 0.1 and 0.9 of 2000 members would stop growing long before the end."""
    low, high = torch.tensor([[0.1], [0.9]]).half(), torch.tensor([[0.9], [0.1]]).half()
    moments = moments_of([low, high] * 1000)
    assert moments.mean().dtype == torch.float32
    assert moments.mean().flatten().tolist() == pytest.approx([0.5, 0.5], abs=1e-4)


# --- behaviour ---


def test_members_are_neither_changed_nor_kept():
    member = torch.tensor([[1.0], [0.0]])
    moments = Moments()
    moments.add(member)
    assert member.tolist() == [[1.0], [0.0]]
    member.fill_(0.5)  # the caller may reuse its memory
    assert moments.mean().tolist() == [[1.0], [0.0]]
    moments.add(torch.tensor([[0.0], [1.0]]))
    assert member.tolist() == [[0.5], [0.5]]


def test_reading_the_moments_does_not_change_them():
    moments = moments_of(random_members(3))
    before = moments.predictive_entropy().clone()
    moments.mutual_information().fill_(7)
    moments.variance().fill_(7)
    torch.testing.assert_close(moments.predictive_entropy(), before)
    assert moments.variance().max() < 1


@pytest.mark.parametrize("weight", [0, -1.0])
def test_a_weight_that_is_not_positive_is_refused(weight):
    with pytest.raises(ValueError, match=r"must be positive and finite; found (0|-1\.0)"):
        Moments().add(torch.ones(2, 1), weight)


def test_a_member_of_another_shape_is_refused():
    moments = moments_of([torch.ones(2, 3, 4)])
    with pytest.raises(ValueError, match=r"\(2, 3, 4\); found \(2, 4, 3\)"):
        moments.add(torch.ones(2, 4, 3))
    with pytest.raises(ValueError, match="shape"):  # would broadcast
        moments.add(torch.ones(2, 1, 1))


@pytest.mark.parametrize("name", ["mean", "predictive_entropy", "expected_entropy", "mutual_information", "variance"])
def test_moments_without_members_are_refused(name):
    with pytest.raises(RuntimeError, match="add"):
        getattr(Moments(), name)()


def test_variance_that_was_not_tracked_is_refused():
    moments = Moments(with_variance=False)
    moments.add(torch.ones(2, 1))
    with pytest.raises(RuntimeError, match="with_variance=True"):
        moments.variance()


# --- weights that differ from voxel to voxel ---


def voxel_weights(count: int, *, seed: int = 0) -> list[torch.Tensor]:
    """(3, 5, 6) for each member, a third of them 0, but none of the first member's."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.rand((3, 5, 6), generator=generator) + 0.1 for _ in range(count)]
    return [weights[0]] + [weight * (torch.rand(weight.shape, generator=generator) > 1 / 3) for weight in weights[1:]]


def test_a_weight_of_zero_leaves_a_voxel_as_it_is():
    """The second member says the opposite and counts in the second voxel only: the mean there is (1/2, 1/2)."""
    moments = Moments()
    moments.add(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    moments.add(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([0.0, 1.0]))
    assert moments.mean().tolist() == [[1.0, 0.5], [0.0, 0.5]]
    assert moments.variance().tolist() == [[0.0, 0.25], [0.0, 0.25]]
    assert moments.expected_entropy().tolist() == [0, 0]
    assert moments.mutual_information().tolist() == pytest.approx([0, LN_2], abs=1e-7)
    assert moments.weight().tolist() == [1, 2]
    assert moments.members == 2


def test_a_weight_of_zero_changes_not_even_the_last_bit():
    members = random_members(3)
    once, thrice = moments_of(members[:1]), moments_of(members[:1])
    for member in members[1:]:
        thrice.add(member, torch.zeros(3, 5, 6))
    for name in ("mean", "predictive_entropy", "expected_entropy", "mutual_information", "variance"):
        assert torch.equal(getattr(once, name)(), getattr(thrice, name)())


def test_equal_weights_per_voxel_are_the_same_as_one_number():
    members, weights = random_members(5, sharpness=3), [0.2, 5.0, 1.0, 1.0, 3.0]
    by_number = moments_of(members, weights)
    by_voxel = moments_of(members, [torch.full((3, 5, 6), weight) for weight in weights])
    for name in ("mean", "predictive_entropy", "expected_entropy", "mutual_information", "variance"):
        torch.testing.assert_close(getattr(by_number, name)(), getattr(by_voxel, name)(), atol=1e-6, rtol=0)
    torch.testing.assert_close(by_voxel.weight(), torch.full((3, 5, 6), 10.2))
    assert by_voxel.largest_weight() == pytest.approx(by_number.largest_weight())


@pytest.mark.parametrize("regions", [False, True])
def test_moments_with_weights_per_voxel_against_numpy(regions):
    members, weights = random_members(6, sharpness=3), voxel_weights(6)
    moments = moments_of(members, weights, regions=regions)
    stack = np.stack([member.double().numpy() for member in members])  # (M, C, *spatial)
    share = np.stack([weight.double().numpy() for weight in weights])  # (M, *spatial)
    share /= share.sum(0)

    def entropies(p: np.ndarray) -> np.ndarray:
        return numpy_entropy(np.stack([p, 1 - p])).sum(0) if regions else numpy_entropy(p)

    mean = (share[:, None] * stack).sum(0)
    expected = sum(part * entropies(member) for part, member in zip(share, stack, strict=True))
    np.testing.assert_allclose(moments.mean(), mean, atol=1e-6)
    np.testing.assert_allclose(moments.predictive_entropy(), entropies(mean), atol=2e-6)
    np.testing.assert_allclose(moments.expected_entropy(), expected, atol=2e-6)
    np.testing.assert_allclose(moments.mutual_information(), entropies(mean) - expected, atol=4e-6)
    np.testing.assert_allclose(moments.variance(), (share[:, None] * (stack - mean) ** 2).sum(0), atol=1e-6)


def test_single_weights_and_weights_per_voxel_can_be_mixed():
    """Weights 1, then 2 and 0, then 1: sums of 4 and 2; the largest is 4."""
    moments = Moments()
    assert moments.weight() == moments.largest_weight() == 0
    moments.add(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    assert moments.weight() == moments.largest_weight() == 1
    moments.add(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([2.0, 0.0]))
    moments.add(torch.tensor([[1.0, 0.5], [0.0, 0.5]]), 1.0)
    assert moments.weight().tolist() == [4, 2]
    assert moments.largest_weight() == 4
    # (1 + 0·2 + 1)/4 = 0.5 and (1 + 0.5)/2 = 0.75
    np.testing.assert_allclose(moments.mean(), [[0.5, 0.75], [0.5, 0.25]], atol=1e-7)


# --- members in pieces ---


@pytest.mark.parametrize("thickness", [1, 2, 3])
def test_a_member_in_slabs_is_the_member_as_a_whole(thickness):
    """Cut along the last axis, which is not how `add` does it."""
    members, weights = random_members(4, sharpness=3), voxel_weights(4)
    whole, pieces = moments_of(members, weights), Moments()
    for member, weight in zip(members, weights, strict=True):
        slabs = [
            Slab((slice(0, 3), slice(0, 5), slice(start, start + thickness)), member[..., start : start + thickness])
            for start in range(0, 6, thickness)
        ]
        pieces.begin_member((4, 3, 5, 6), weight)
        for slab in reversed(slabs):
            pieces.add_slab(slab)
    assert pieces.members == 4
    for name in ("mean", "predictive_entropy", "expected_entropy", "mutual_information", "variance"):
        torch.testing.assert_close(getattr(pieces, name)(), getattr(whole, name)(), atol=1e-6, rtol=0)


def test_a_member_of_another_shape_is_refused_before_its_first_slab():
    moments = moments_of([torch.ones(2, 3, 4)])
    with pytest.raises(ValueError, match=r"\(2, 3, 4\); found \(2, 4, 3\)"):
        moments.begin_member((2, 4, 3))
    with pytest.raises(ValueError, match="must be positive and finite; found 0"):
        moments.begin_member((2, 3, 4), 0)
    assert moments.members == 1
    assert moments.weight() == 1


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("weights", [(1.0, 2.0, 0.5), (1.0, torch.linspace(0.5, 2, 90).reshape(3, 5, 6), 2.0)])
def test_all_classes_at_once_give_the_moments_of_one_after_the_other(regions, weights):
    """As on a GPU; in slabs of two slices and one."""
    both = [Moments(regions=regions, at_once=at_once) for at_once in (False, True)]
    for member, weight in zip(random_members(3, sharpness=3), weights, strict=True):
        for moments in both:
            moments.begin_member(member.shape, weight)
            for where in ((slice(0, 2), slice(0, 5), slice(0, 6)), (slice(2, 3), slice(0, 5), slice(0, 6))):
                moments.add_slab(Slab(where, member[(slice(None), *where)]))
    for name in ("mean", "predictive_entropy", "expected_entropy", "mutual_information", "variance"):
        torch.testing.assert_close(getattr(both[1], name)(), getattr(both[0], name)(), rtol=0, atol=1e-6)


# --- the entropy ---


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("regions", [False, True])
def test_certainty_has_no_entropy_and_is_never_nan(regions, at_once):
    probabilities = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    assert entropy(probabilities, regions=regions, at_once=at_once).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("tiny", [1e-45, 1e-40, 1.2e-38, 1e-30])  # the first two are denormal in single precision
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("regions", [False, True])
def test_the_entropy_of_probabilities_next_to_zero_is_finite_and_next_to_zero(tiny, regions, at_once):
    """−p ln p is at most 69·1e-30 here."""
    found = entropy(torch.tensor([[tiny], [1.0]]), regions=regions, at_once=at_once)
    assert 0 <= found.item() < 1e-28


@pytest.mark.parametrize("shape", [(5, 40, 41), (3, 2, 3, 4), (2, 70000), (4, 1)])  # 70000 are more than one piece
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("regions", [False, True])
def test_the_entropy_is_that_of_numpy_in_double_precision(shape, regions, at_once):
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.softmax(4 * torch.randn(shape, generator=generator), 0)
    p = probabilities.double().numpy()
    expected = numpy_entropy(np.stack([p, 1 - p])).sum(0) if regions else numpy_entropy(p)
    found = entropy(probabilities, regions=regions, at_once=at_once)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_entropy_of_a_transposed_view_is_the_transposed_entropy():
    probabilities = random_members(1)[0]
    turned = entropy(probabilities.permute(0, 3, 1, 2))
    expected = numpy_entropy(probabilities.double().numpy()).transpose(2, 0, 1)
    np.testing.assert_allclose(turned, expected, atol=1e-6)


def test_a_part_of_the_moments_is_that_part_of_each():
    members = random_members(3, sharpness=3)
    where = (slice(1, 3), slice(0, 5), slice(2, 4))
    moments, cut = moments_of(members), moments_of([member[:, 1:3, :, 2:4] for member in members])
    part = moments.part(where)
    for name in ("mean", "predictive_entropy", "expected_entropy", "mutual_information", "variance"):
        torch.testing.assert_close(getattr(part, name)(), getattr(cut, name)())


def test_the_entropy_of_a_single_member_is_its_expected_entropy():
    moments = moments_of(random_members(1))
    assert torch.equal(moments.predictive_entropy(), moments.expected_entropy())
    assert moments.mutual_information().max() == 0


def test_the_entropy_does_not_change_the_probabilities():
    probabilities = random_members(1)[0]
    before = probabilities.clone()
    entropy(probabilities, regions=True)
    assert torch.equal(probabilities, before)
