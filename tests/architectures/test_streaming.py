"""Streaming: weights by hand and in NumPy, mixtures as nnU-Net reads them, padding that must not count."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn
from torch._dynamo import is_dynamo_supported

from nnunet_ext.architectures.deeplab import DeepLabV3Plus
from nnunet_ext.architectures.streaming import (
    BottleneckDropout,
    FixedWeights,
    MemoryWeights,
    StreamingNetwork,
    marked_padding,
    memory_weights,
    with_dropout,
)

CHANNELS = 2
STRIDES = {"2d": [1, 2, 2], "3d": [(1, 1, 1), (2, 2, 2), (1, 2, 2)]}


def unet(plan, *, seed=0, deep_supervision=False):
    torch.manual_seed(seed)
    conv_op, norm_op = (nn.Conv2d, nn.InstanceNorm2d) if plan == "2d" else (nn.Conv3d, nn.InstanceNorm3d)
    return PlainConvUNet(
        *(CHANNELS, 3, [4, 6, 8], conv_op, 3, STRIDES[plan], 1, 3, 1),
        norm_op=norm_op,
        nonlin=nn.LeakyReLU,
        conv_bias=True,
        deep_supervision=deep_supervision,
    )


def mixture_of(plan, count=2, *, weigh=None, mixture="log", regions=False, dropout=None, **options):
    classifiers = [unet(plan, seed=seed, **options) for seed in range(count)]
    if dropout:
        classifiers = [with_dropout(classifier, dropout) for classifier in classifiers]
    network = StreamingNetwork(classifiers, weigh or MemoryWeights(kappa=20.0), mixture)
    network.declare_regions(regions)
    return network


def stack(*, batch=2, slices=4, seed=0):
    """Stacks of a 2D network or patches of a 3D one, (batch, channels, slices, 8, 12)."""
    return torch.randn((batch, CHANNELS, slices, 8, 12), generator=torch.Generator().manual_seed(seed))


def with_padding(image, padded):
    """The image with the slices that `padded` (a list of slices per stack) names marked as a loader does."""
    marked = image.clone()
    for position, slices in enumerate(padded):
        marked[position, :, slices] = torch.nan
    return marked


def blanked(image, padded):
    """What the classifiers see of it."""
    return with_padding(image, padded).nan_to_num(nan=0.0)


def random_probabilities(*shape, seed=0):
    """(K, B, C, D, *in_plane), a distribution over C."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(dim=2)


def one_voxel(*classifiers):
    """The probabilities of K classifiers at one voxel of a stack of one slice, (K, 1, C, 1, 1, 1)."""
    return torch.tensor(classifiers)[:, None, :, None, None, None]


def one_hot(classes):
    return [1.0] + [0.0] * (classes - 1)


def uniform(classes):
    return [1 / classes] * classes


def variance_over_classes(memory):
    return np.var(memory, ddof=1)


def mean_variance_of_regions(memory):
    return np.mean([np.var([p, 1 - p], ddof=1) for p in memory])


def expected_weights(probabilities, *, kappa=1.0, valid=None, regions=False):
    """Eq. 3 voxel by voxel, in NumPy: (K, B, C, D, H, W) to (K, B, H, W)."""
    count, batch, classes, depth, height, width = probabilities.shape
    weights = np.empty((count, batch, height, width))
    decidedness_of = mean_variance_of_regions if regions else variance_over_classes
    for b, h, w in np.ndindex(batch, height, width):
        slices = [d for d in range(depth) if valid is None or valid[b][d]] or list(range(depth))
        exponentials = []
        for k in range(count):
            memory = [np.mean([probabilities[k, b, c, d, h, w] for d in slices]) for c in range(classes)]
            exponentials.append(np.exp(kappa * decidedness_of(memory)))
        weights[:, b, h, w] = np.array(exponentials) / np.sum(exponentials)
    return weights


def expected_mixture(logits, *, valid=None, regions=False, kappa=20.0):
    """sum_i W_i P_i of logits (K, B, C, D, H, W), in NumPy."""
    logits = logits.double().numpy()
    if regions:
        probabilities = 1 / (1 + np.exp(-logits))
    else:
        exponentials = np.exp(logits - logits.max(axis=2, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=2, keepdims=True)
    weights = expected_weights(probabilities, kappa=kappa, valid=valid, regions=regions)
    return (weights[:, :, None, None] * probabilities).sum(axis=0)


# --- the memory's weights ---


def test_one_classifier_weighs_one():
    weights = memory_weights(random_probabilities(1, 2, 3, 4, 5, 6))
    assert torch.equal(weights, torch.ones(1, 2, 1, 1, 5, 6))


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("regions", [False, True])
def test_identical_classifiers_share_alike(count, regions):
    one = random_probabilities(1, 2, 3, 4, 5, 6)
    weights = memory_weights(one.expand(count, -1, -1, -1, -1, -1), kappa=3.0, regions=regions)
    torch.testing.assert_close(weights, torch.full((count, 2, 1, 1, 5, 6), 1 / count))


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("kappa", [0.0, 1.0, 50.0])
def test_weights_sum_to_one(kappa, regions):
    weights = memory_weights(random_probabilities(4, 2, 3, 5, 6, 7), kappa=kappa, regions=regions)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(2, 1, 1, 6, 7), atol=1e-6, rtol=0)
    assert (weights >= 0).all()


@pytest.mark.parametrize(
    ("classes", "of_one_hot"),
    [
        # The unbiased variance of a one-hot vector: ((1 - 1/C)^2 + (C - 1)/C^2) / (C - 1) = 1/C; of a uniform one 0.
        (2, 0.622),  # exp(0.5) = 1.6487; 1.6487 / 2.6487
        (4, 0.562),  # exp(0.25) = 1.2840; 1.2840 / 2.2840
        (14, 0.518),  # exp(1/14) = 1.0740; 1.0740 / 2.0740
    ],
)
def test_one_hot_against_uniform_by_hand(classes, of_one_hot):
    weights = memory_weights(one_voxel(one_hot(classes), uniform(classes))).flatten()
    assert weights.tolist() == pytest.approx([of_one_hot, 1 - of_one_hot], abs=5e-4)


@pytest.mark.parametrize(
    ("kappa", "of_one_hot"),
    [
        (0.0, 0.5),
        (4.0, np.e / (np.e + 1)),  # 4 * 1/4 = 1
        (-4.0, 1 / (np.e + 1)),
    ],
)
def test_kappa_sharpens_the_weights(kappa, of_one_hot):
    weights = memory_weights(one_voxel(one_hot(4), uniform(4)), kappa=kappa).flatten()
    assert weights.tolist() == pytest.approx([of_one_hot, 1 - of_one_hot])


def test_what_counts_is_the_variance_of_the_mean_not_the_mean_of_the_variances():
    # The first classifier is certain of another class in each of two slices. Its memory (1/2, 1/2, 0, 0) has the
    # variance 4 * (1/4)^2 / 3 = 1/12, each of its slices has 1/4. The second one's is that of a one-hot vector.
    changing = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]]).T
    constant = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0]]).T
    weights = memory_weights(torch.stack([changing, constant])[:, None]).flatten()  # (2, 1, 4, 2), no axes in plane
    expected = np.exp([1 / 12, 1 / 4]) / np.exp([1 / 12, 1 / 4]).sum()
    assert weights.tolist() == pytest.approx(expected.tolist())


def test_regions_by_hand():
    # The variance of (p, 1 - p) is (2p - 1)^2 / 2: 1/2 for p = 1 and 0 for p = 1/2, so the first one's mean is 1/4.
    # The second one is undecided in both regions: exp(1/4) / (exp(1/4) + 1) = 0.562.
    weights = memory_weights(one_voxel([1.0, 0.5], [0.5, 0.5]), regions=True).flatten()
    assert weights.tolist() == pytest.approx([0.5622, 0.4378], abs=1e-4)


def test_a_region_certainly_absent_weighs_as_much_as_one_certainly_present():
    weights = memory_weights(one_voxel([0.0], [1.0], [0.5]), regions=True).flatten()
    # exp(1/2) = 1.6487; 1.6487 / (1.6487 + 1.6487 + 1)
    assert weights.tolist() == pytest.approx([0.3837, 0.3837, 0.2327], abs=1e-4)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("valid", [None, [[True, True, False], [False, True, False]], [[True] * 3, [False] * 3]])
def test_weights_are_those_of_the_paper_voxel_by_voxel(valid, regions):
    probabilities = random_probabilities(3, 2, 4, 3, 2, 3)
    valid_slices = None if valid is None else torch.tensor(valid)
    weights = memory_weights(probabilities, kappa=7.0, valid_slices=valid_slices, regions=regions)
    expected = expected_weights(probabilities.numpy(), kappa=7.0, valid=valid, regions=regions)
    np.testing.assert_allclose(weights[:, :, 0, 0].numpy(), expected, rtol=1e-5)


def test_the_order_of_slices_does_not_matter():
    probabilities = random_probabilities(2, 1, 3, 5, 4, 4)
    shuffled = probabilities[:, :, :, [3, 0, 4, 2, 1]]
    torch.testing.assert_close(memory_weights(shuffled), memory_weights(probabilities), atol=1e-6, rtol=0)


@pytest.mark.parametrize("garbage", [0.0, 1e6, -3.0])
@pytest.mark.parametrize("regions", [False, True])
def test_padded_slices_do_not_change_the_weights(garbage, regions):
    probabilities = random_probabilities(2, 2, 3, 4, 5, 6)
    padded = torch.full((2, 2, 3, 7, 5, 6), garbage)
    padded[:, :, :, 1:5] = probabilities
    valid = torch.tensor([False] + [True] * 4 + [False] * 2).expand(2, -1)
    found = memory_weights(padded, valid_slices=valid, regions=regions)
    torch.testing.assert_close(found, memory_weights(probabilities, regions=regions))


def test_each_stack_of_a_batch_has_its_own_padding():
    probabilities = random_probabilities(2, 3, 3, 4, 5, 6)
    valid = torch.tensor([[True] * 4, [True, False, False, True], [False, True, True, True]])
    weights = memory_weights(probabilities, valid_slices=valid)
    for b in range(3):
        alone = memory_weights(probabilities[:, b : b + 1, :, valid[b]])
        torch.testing.assert_close(weights[:, b : b + 1], alone)


def test_a_stack_of_nothing_but_padding_uses_all_slices():
    probabilities = random_probabilities(2, 1, 3, 4, 5, 6)
    found = memory_weights(probabilities, valid_slices=torch.zeros((1, 4), dtype=torch.bool))
    torch.testing.assert_close(found, memory_weights(probabilities))


@pytest.mark.parametrize("in_plane", [(), (7,), (5, 6)])
def test_all_classes_and_slices_share_the_weights(in_plane):
    weights = memory_weights(random_probabilities(3, 2, 4, 5, *in_plane))
    assert weights.shape == (3, 2, 1, 1, *in_plane)
    assert weights.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("regions", [False, True])
def test_half_precision_is_weighted_in_single_precision(dtype, regions):
    half = random_probabilities(2, 1, 3, 4, 5, 6).to(dtype)
    valid = torch.tensor([[True, True, True, False]])
    weights = memory_weights(half, valid_slices=valid, regions=regions)
    assert weights.dtype == torch.float32
    assert torch.equal(weights, memory_weights(half.float(), valid_slices=valid, regions=regions))


@pytest.mark.parametrize("regions", [False, True])
def test_the_gradient_flows_through_the_weights(regions):
    """Against central differences of the definition in NumPy, in double precision."""
    probabilities = random_probabilities(2, 1, 3, 2, 1, 2).double().requires_grad_()
    valid = [[True, False]]
    options = {"kappa": 5.0, "regions": regions}
    factors = torch.tensor([[2.0, -1.0], [0.5, 3.0]])[:, None, None, None, None]  # (2, 1, 1, 1, 1, 2)

    def total(values):
        return (expected_weights(values, valid=valid, **options) * factors[:, :, 0, 0].numpy()).sum()

    expected, step = np.zeros(probabilities.shape), 1e-5
    for index in np.ndindex(*probabilities.shape):
        above, below = probabilities.detach().numpy().copy(), probabilities.detach().numpy().copy()
        above[index] += step
        below[index] -= step
        expected[index] = (total(above) - total(below)) / (2 * step)
    (memory_weights(probabilities, valid_slices=torch.tensor(valid), **options) * factors).sum().backward()
    assert np.abs(expected[:, :, :, 0]).min() > 1e-4
    assert np.abs(expected[:, :, :, 1]).max() == 0  # a padded slice
    np.testing.assert_allclose(probabilities.grad.numpy(), expected, atol=1e-5)


def test_the_memory_rule_passes_all_its_arguments_on():
    probabilities = random_probabilities(2, 2, 3, 4, 5, 6)
    options = {"valid_slices": torch.tensor([[True, False, True, True]] * 2), "regions": True}
    found = MemoryWeights(3.0)(probabilities, **options)
    torch.testing.assert_close(found.exp(), memory_weights(probabilities, kappa=3.0, **options))


# --- fixed weights ---


@pytest.mark.parametrize("regions", [False, True])
def test_fixed_weights_are_the_same_everywhere(regions):
    probabilities = random_probabilities(2, 3, 3, 4, 5, 6).half()
    weights = FixedWeights([0.7, 0.3])(probabilities, valid_slices=None, regions=regions)
    assert weights.shape == (2, 1, 1, 1, 1, 1)
    assert weights.dtype == torch.float32
    assert weights.flatten().exp().tolist() == pytest.approx([0.7, 0.3])


@pytest.mark.parametrize("plan", ["2d", "3d"])
def test_a_mixture_with_fixed_weights_is_the_weighted_mean(plan):
    network, image = mixture_of(plan, weigh=FixedWeights([0.7, 0.3])).eval(), stack()
    with torch.no_grad():
        first, second = (network.classify(each, image).softmax(dim=1) for each in network.classifiers)
        torch.testing.assert_close(network(image).softmax(dim=1), 0.7 * first + 0.3 * second)


# --- the network's output ---


@pytest.mark.parametrize("plan", ["2d", "3d"])
def test_one_classifier_is_that_network(plan):
    network, image = mixture_of(plan, 1).eval(), stack()
    image = image[:, :, 0] if plan == "2d" else image
    with torch.no_grad():
        plain = network.classifiers[0](image).softmax(dim=1)
        torch.testing.assert_close(network(image).softmax(dim=1), plain)
        network.mixture = "paper"
        torch.testing.assert_close(network(image), plain)


@pytest.mark.parametrize("plan", ["2d", "3d"])
@pytest.mark.parametrize(("regions", "nonlinearity"), [(False, "softmax"), (True, "sigmoid")])
def test_nnunets_nonlinearity_gives_the_mixed_probabilities(plan, regions, nonlinearity):
    network, image = mixture_of(plan, 3, regions=regions).eval(), stack()
    with torch.no_grad():
        logits = torch.stack([network.classify(classifier, image) for classifier in network.classifiers])
        output = network(image)
    found = output.softmax(dim=1) if nonlinearity == "softmax" else output.sigmoid()
    assert output.shape == (2, 3, 4, 8, 12)
    np.testing.assert_allclose(found.numpy(), expected_mixture(logits, regions=regions), atol=2e-6)


def test_the_papers_mixture_is_the_probabilities_themselves():
    network, image = mixture_of("2d", mixture="paper").eval(), stack()
    with torch.no_grad():
        logits = torch.stack([network.classify(classifier, image) for classifier in network.classifiers])
        np.testing.assert_allclose(network(image).numpy(), expected_mixture(logits), atol=1e-6)


@pytest.mark.parametrize("regions", [False, True])
def test_the_output_is_the_logarithm_of_the_mixed_probabilities_or_their_log_odds(regions):
    network = mixture_of("2d", 3, regions=regions)
    logits = 3 * torch.randn((3, 2, 3, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    mixed = expected_mixture(logits, regions=regions)
    expected = np.log(mixed / (1 - mixed)) if regions else np.log(mixed)
    np.testing.assert_allclose(network.combine_logits(logits).numpy(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("regions", [False, True])
def test_half_precision_logits_are_mixed_in_single_precision(regions, dtype):
    network = mixture_of("2d", regions=regions)
    logits = torch.randn((2, 1, 3, 4, 5, 6), generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = network.combine_logits(logits, None)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, network.combine_logits(logits.float(), None))


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("rule", [MemoryWeights(), FixedWeights([1 / 3] * 3)])
def test_identical_classifiers_are_that_classifier(rule, regions):
    network = mixture_of("2d", 3, weigh=rule, regions=regions)
    logits = 20 * torch.randn((1, 2, 3, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    found = network.combine_logits(logits.expand(3, -1, -1, -1, -1, -1))
    expected = logits[0] if regions else logits[0].log_softmax(dim=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("regions", [False, True])
def test_a_classifier_without_weight_leaves_the_other_and_has_no_gradient(regions):
    network = mixture_of("2d", weigh=FixedWeights([1.0, 0.0]), regions=regions)
    logits = torch.randn((2, 1, 3, 2, 4, 4), generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = network.combine_logits(logits)
    torch.testing.assert_close(found, logits[0] if regions else logits[0].log_softmax(dim=1))
    found[:, 0].sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[1].abs().max() == 0


@pytest.mark.parametrize("margin", [14.0, 60.0])
@pytest.mark.parametrize("regions", [False, True])
def test_classifiers_that_are_all_wrong_by_a_margin_learn(regions, margin):
    # Cross-entropy of the true class, whose logit is -margin beside 0: each of the two classifiers has half of the
    # slope of one alone, which is 1 to rounding for classes as for a region.
    network = mixture_of("2d", weigh=FixedWeights([0.5, 0.5]), regions=regions)
    logits = torch.zeros((2, 1, 1 if regions else 2, 1, 1, 1))
    logits[:, :, 0] = -margin
    logits.requires_grad_()
    output = network.combine_logits(logits)
    target = torch.ones_like(output) if regions else torch.zeros((1, 1, 1, 1), dtype=torch.long)
    criterion = nn.BCEWithLogitsLoss() if regions else nn.CrossEntropyLoss()
    loss = criterion(output, target)
    loss.backward()
    assert loss.item() == pytest.approx(margin, rel=1e-5)
    assert logits.grad[:, 0, 0].flatten().tolist() == pytest.approx([-0.5, -0.5], rel=1e-5)


@pytest.mark.parametrize("regions", [False, True])
def test_the_memorys_weights_learn_there_too(regions):
    network = mixture_of("2d", weigh=MemoryWeights(), regions=regions)
    logits = torch.zeros((2, 1, 2, 3, 1, 1))
    logits[:, :, 0] = -60.0
    logits.requires_grad_()
    network.combine_logits(logits)[:, 0].sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, :, 0] > 0.4).all()


@pytest.mark.parametrize("kappa", [0.0, 1.0, 1e4])
def test_weights_that_vanish_have_finite_logarithms(kappa):
    weights = MemoryWeights(kappa)(one_voxel(one_hot(4), uniform(4)), valid_slices=None, regions=False)
    # U is 1/4 and 0: log W of the second one is -log(1 + exp(kappa / 4))
    assert weights.flatten()[1].item() == pytest.approx(-np.logaddexp(0, kappa / 4), rel=1e-5)


@pytest.mark.parametrize("regions", [False, True])
def test_the_outputs_gradient_is_that_of_the_definition_in_finite_differences(regions):
    network = mixture_of("2d", regions=regions)
    logits = torch.randn((2, 1, 3, 2, 1, 1), generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    network.combine_logits(logits, None)[0, 0].sum().backward()

    def total(values):
        mixed = expected_mixture(values, regions=regions)[0, 0]
        return (np.log(mixed / (1 - mixed)) if regions else np.log(mixed)).sum()

    expected, step = np.zeros(logits.shape), 1e-5
    for index in np.ndindex(*logits.shape):
        above, below = logits.detach().clone(), logits.detach().clone()
        above[index] += step
        below[index] -= step
        expected[index] = (total(above) - total(below)) / (2 * step)
    np.testing.assert_allclose(logits.grad.numpy(), expected, atol=2e-4)


# --- stacks and slices ---


def test_slices_of_a_stack_go_through_the_classifier_one_by_one():
    network, stacks = mixture_of("2d").eval(), stack(batch=3, slices=5)
    with torch.no_grad():
        for classifier in network.classifiers:
            one_by_one = torch.stack([classifier(stacks[:, :, d]) for d in range(5)], dim=2)
            torch.testing.assert_close(network.classify(classifier, stacks), one_by_one)


def test_a_single_slice_is_a_stack_of_one():
    network, image = mixture_of("2d").eval(), stack()[:, :, 0]
    with torch.no_grad():
        output = network(image)
        assert output.shape == (2, 3, 8, 12)
        assert torch.equal(output, network(image[:, :, None])[:, :, 0])


def test_a_single_slice_with_deep_supervision_is_a_stack_of_one():
    network, image = mixture_of("2d", deep_supervision=True).eval(), stack()[:, :, 0]
    with torch.no_grad():
        outputs, of_stack = network(image), network(image[:, :, None])
    assert [output.shape for output in outputs] == [(2, 3, 8, 12), (2, 3, 4, 6)]
    assert all(torch.equal(output, other[:, :, 0]) for output, other in zip(outputs, of_stack, strict=True))


def test_slices_of_a_stack_share_their_weights():
    # So the output of a slice depends on the others, unlike that of any classifier
    network, stacks = mixture_of("2d").eval(), stack(batch=1)
    other = torch.cat([stacks[:, :, :1], stack(batch=1, seed=1)[:, :, 1:]], dim=2)
    with torch.no_grad():
        assert not torch.allclose(network(stacks)[:, :, 0], network(other)[:, :, 0], atol=1e-5)


@pytest.mark.parametrize("plan", ["2d", "3d"])
def test_stacks_of_a_batch_do_not_mix(plan):
    network, images = mixture_of(plan).eval(), stack(batch=2)
    with torch.no_grad():
        both = network(images)
        torch.testing.assert_close(both[1:], network(images[1:]))


@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("regions", [False, True])
def test_padding_does_not_change_the_output_of_the_other_slices(regions, deep_supervision):
    network = mixture_of("2d", regions=regions, deep_supervision=deep_supervision).eval()
    stacks = stack(batch=1, slices=3)
    with torch.no_grad():
        expected = network(stacks)
        for before, after in [(1, 0), (0, 2), (2, 3)]:
            left, right = (torch.full((1, CHANNELS, count, 8, 12), torch.nan) for count in (before, after))
            found = network(torch.cat([left, stacks, right], dim=2))
            pairs = zip(found, expected, strict=True) if deep_supervision else [(found, expected)]
            for output, plain in pairs:
                torch.testing.assert_close(output[:, :, before : before + 3], plain)


@pytest.mark.parametrize("plan", ["2d", "3d"])
@pytest.mark.parametrize("constant", [0.0, -5.0])
def test_a_blank_slice_of_the_image_stays_in_the_memory(plan, constant):
    network, image = mixture_of(plan).eval(), stack()
    image[:, :, 0] = constant
    with torch.no_grad():
        logits = torch.stack([network.classify(classifier, image) for classifier in network.classifiers])
        found = network(image).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected_mixture(logits), atol=2e-6)
    assert np.abs(found - expected_mixture(logits, valid=[[False, True, True, True]] * 2)).max() > 1e-4


def test_a_stack_of_nothing_but_padding_stays_finite():
    network = mixture_of("2d").train()
    output = network(torch.full((1, CHANNELS, 3, 8, 12), torch.nan))
    output.sum().backward()
    assert output.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in network.parameters() if weight.grad is not None)


def test_padding_of_a_3d_patch_does_not_enter_its_memory_and_is_zero_to_the_classifiers():
    network, image, padded = mixture_of("3d").eval(), stack(), [[0], [2, 3]]
    with torch.no_grad():
        logits = torch.stack([classifier(blanked(image, padded)) for classifier in network.classifiers])
        found = network(with_padding(image, padded)).softmax(dim=1).numpy()
    valid = [[False, True, True, True], [True, True, False, False]]
    np.testing.assert_allclose(found, expected_mixture(logits, valid=valid), atol=2e-6)
    assert np.abs(found - expected_mixture(logits)).max() > 1e-4


def test_the_channels_that_a_cascade_appends_are_not_marked():
    network, image = mixture_of("2d").eval(), stack(batch=1)
    marked = image.clone()
    marked[:, 0, 1], marked[:, 1, 1] = torch.nan, 1.0  # the previous stage's prediction, grown into the padding
    with torch.no_grad():
        assert torch.equal(network(marked), network(with_padding(image, [[1]])))


def test_a_slice_is_padding_if_it_is_nan_throughout():
    image = torch.zeros((2, 2, 3, 4, 4))
    image[0, :, 1] = torch.nan
    image[0, 0, 2, 2, 3] = torch.nan  # one voxel: the image is damaged, not padded
    image[1, 1, 0] = torch.nan  # not in the first channel
    assert marked_padding(image).tolist() == [[False, True, False], [False, False, False]]


def test_the_image_that_is_given_keeps_its_marks():
    image = with_padding(stack(), [[0], []])
    with torch.no_grad():
        mixture_of("2d").eval()(image)
    assert image[0, :, 0].isnan().all()


# --- deep supervision ---


@pytest.mark.parametrize("plan", ["2d", "3d"])
@pytest.mark.parametrize("regions", [False, True])
def test_each_scale_has_a_memory_of_its_own(plan, regions):
    network, image = mixture_of(plan, deep_supervision=True, regions=regions).eval(), stack()
    with torch.no_grad():
        outputs = network(image)
        scales = zip(*(network.classify(classifier, image) for classifier in network.classifiers), strict=True)
    shapes = {"2d": [(2, 3, 4, 8, 12), (2, 3, 4, 4, 6)], "3d": [(2, 3, 4, 8, 12), (2, 3, 2, 4, 6)]}
    assert isinstance(outputs, list)
    assert [output.shape for output in outputs] == shapes[plan]
    for output, logits in zip(outputs, scales, strict=True):
        found = output.sigmoid() if regions else output.softmax(dim=1)
        np.testing.assert_allclose(found.numpy(), expected_mixture(torch.stack(logits), regions=regions), atol=2e-6)


def test_a_coarse_slice_is_valid_if_any_slice_of_it_is():
    # Four slices, of which the first and the second become one, the third and the fourth another
    network, logits = mixture_of("3d"), torch.randn((2, 3, 3, 2, 4, 4), generator=torch.Generator().manual_seed(0))
    valid = [[True, False, False, False], [False, False, True, True], [False, True, False, True]]
    coarse = [[True, False], [False, True], [True, True]]
    found = network.combine_logits(logits, torch.tensor(valid)).softmax(dim=1)
    np.testing.assert_allclose(found.numpy(), expected_mixture(logits, valid=coarse), atol=2e-6)


def test_the_padding_of_a_3d_patch_stays_out_of_the_coarse_memory_too():
    network, image = mixture_of("3d", deep_supervision=True).eval(), stack()
    padded = [[2, 3]] * 2  # the second one of two coarse slices
    with torch.no_grad():
        _, coarse = network(with_padding(image, padded))
        logits = torch.stack([classifier(blanked(image, padded))[1] for classifier in network.classifiers])
    expected = expected_mixture(logits, valid=[[True, False]] * 2)
    np.testing.assert_allclose(coarse.softmax(dim=1).numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("dropout", [None, 0.5])
@pytest.mark.parametrize("plan", ["2d", "3d"])
def test_deep_supervision_is_switched_where_nnunet_switches_it(plan, dropout):
    network, image = mixture_of(plan, dropout=dropout).eval(), stack()
    with torch.no_grad():
        plain = network(image)
        assert network.decoder.deep_supervision is False
        network.decoder.deep_supervision = True
        assert network.decoder.deep_supervision is True
        assert all(classifier.decoder.deep_supervision for classifier in network.classifiers)
        outputs = network(image)
        network.decoder.deep_supervision = False
        assert torch.equal(network(image), plain)
    assert len(outputs) == 2
    assert torch.equal(outputs[0], plain)


def test_a_unet_and_a_deeplab_mix_at_every_scale():
    deeplab = DeepLabV3Plus(
        CHANNELS, 3, conv_op=nn.Conv2d, strides=STRIDES["2d"], features_per_stage=[4, 6, 8], deep_supervision=True
    )
    network = StreamingNetwork([unet("2d", deep_supervision=True), deeplab], MemoryWeights()).eval()
    with torch.no_grad():
        outputs = network(stack())
        assert [output.shape for output in outputs] == [(2, 3, 4, 8, 12), (2, 3, 4, 4, 6)]
        network.decoder.deep_supervision = False
        assert network(stack()).shape == (2, 3, 4, 8, 12)


# --- regions are part of the weights ---


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("regions", [False, True])
def test_the_regions_flag_is_loaded_with_the_weights(regions, assign):
    given, network = mixture_of("2d", regions=regions).eval(), mixture_of("2d", regions=not regions).eval()
    network.load_state_dict(deepcopy(given.state_dict()), assign=assign)
    assert network.has_regions is regions
    assert bool(network.regions) is regions
    with torch.no_grad():
        assert torch.equal(network(stack()), given(stack()))


@pytest.mark.parametrize("assign", [False, True])
def test_the_regions_flag_is_loaded_inside_another_network_too(assign):
    given = nn.Sequential(mixture_of("2d", regions=True), mixture_of("2d", regions=False))
    network = nn.Sequential(mixture_of("2d", regions=False), mixture_of("2d", regions=True))
    network.load_state_dict(deepcopy(given.state_dict()), assign=assign)
    assert [inner.has_regions for inner in network] == [True, False]


def test_a_copy_of_a_network_keeps_the_regions_flag_and_is_independent():
    network = mixture_of("2d", regions=True)
    copied = deepcopy(network)
    assert copied.has_regions
    copied.load_state_dict(mixture_of("2d", regions=False).state_dict())
    assert not copied.has_regions
    assert network.has_regions
    assert bool(network.regions)


# --- dropout at the bottleneck ---


@pytest.mark.parametrize("plan", ["2d", "3d"])
def test_dropout_leaves_the_names_of_the_weights(plan):
    plain = unet(plan)
    dropped = with_dropout(deepcopy(plain), 0.5)
    assert isinstance(dropped, BottleneckDropout)
    assert list(dropped.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(dropped.state_dict())


@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("plan", ["2d", "3d"])
def test_dropout_is_off_in_evaluation(plan, deep_supervision):
    plain = unet(plan, deep_supervision=deep_supervision).eval()
    dropped = with_dropout(deepcopy(plain), 0.5).eval()
    image = stack() if plan == "3d" else stack()[:, :, 0]
    with torch.no_grad():
        found, expected = dropped(image), plain(image)
    if deep_supervision:
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    else:
        assert torch.equal(found, expected)


@pytest.mark.parametrize("probability", [0.25, 0.5])
def test_dropout_takes_elements_of_the_bottleneck_only(probability):
    network = BottleneckDropout(unet("2d"), probability).train()
    image, received = stack(batch=8)[:, :, 0], []
    network.decoder.register_forward_pre_hook(lambda _, arguments: received.extend(arguments[0]))
    network(image)
    *skips, bottleneck = network.encoder(image)
    *skips_received, bottleneck_received = received
    assert all(torch.equal(*pair) for pair in zip(skips_received, skips, strict=True))
    dropped = bottleneck_received == 0
    assert dropped.float().mean().item() == pytest.approx(probability, abs=0.12)  # of 8 * 8 * 6 = 384 elements
    # what stays is scaled up, so that the expectation is the same
    torch.testing.assert_close(bottleneck_received[~dropped], bottleneck[~dropped] / (1 - probability))


def test_without_probability_dropout_trains_as_the_unet():
    plain = unet("2d").train()
    assert torch.equal(BottleneckDropout(deepcopy(plain), 0.0).train()(stack()[:, :, 0]), plain(stack()[:, :, 0]))


def test_a_deeplab_has_its_own_dropout():
    deeplab = DeepLabV3Plus(CHANNELS, 3, conv_op=nn.Conv2d, strides=STRIDES["2d"], features_per_stage=[4, 6, 8])
    assert with_dropout(deeplab, 0.5) is deeplab


# --- torch.compile ---


@pytest.mark.skipif(not is_dynamo_supported(), reason="torch.compile does not run on this Python or system")
@pytest.mark.parametrize(("plan", "deep_supervision"), [("2d", False), ("2d", True), ("3d", True)])
def test_torch_compile_sees_one_graph_in_training(plan, deep_supervision):
    network = mixture_of(plan, deep_supervision=deep_supervision, dropout=0.5)
    network.load_state_dict(network.state_dict())  # as after a resume
    network.train()
    torch._dynamo.reset()
    try:
        torch.manual_seed(0)
        found = torch.compile(network, backend="eager", fullgraph=True)(stack())  # a graph break raises
    finally:
        torch._dynamo.reset()
    torch.manual_seed(0)
    expected = network(stack())
    for pair in zip(found, expected, strict=True) if deep_supervision else [(found, expected)]:
        torch.testing.assert_close(*pair)


# --- the memory of a volume ---


def test_the_memory_of_a_volume_by_hand():
    """Two slices, four classes: a decided classifier has U = 1/4, an undecided one 0; W = e^U over the sum of both.

    Where the first one is decided for another class in each slice, M = (1/2, 1/2, 0, 0) and U = 4 (1/4)^2 / 3 = 1/12.
    """
    decided = torch.full((4, 2, 1, 2), -100.0)  # (C, D, 1, 2)
    decided[1, :, 0, 0] = decided[1, 0, 0, 1] = decided[2, 1, 0, 1] = 100.0
    volumes = StreamingNetwork([nn.Conv2d(1, 4, 1), nn.Conv2d(1, 4, 1)], MemoryWeights()).over_volumes()
    uncertainty, weights = volumes.memory([decided, torch.zeros(4, 2, 1, 2)])
    assert uncertainty.shape == weights.shape == (2, 2, 1, 2)
    for each_slice in range(2):
        assert uncertainty[0, each_slice, 0].tolist() == pytest.approx([1 / 4, 1 / 12])
        assert uncertainty[1, each_slice, 0].tolist() == pytest.approx([0, 0], abs=1e-7)
        # e^(1/4) = 1.2840, e^(1/12) = 1.0869
        assert weights[0, each_slice, 0].tolist() == pytest.approx([1.2840 / 2.2840, 1.0869 / 2.0869], abs=1e-4)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(2, 1, 2))


def test_fixed_weights_are_the_memorys_weights_everywhere():
    network = StreamingNetwork([nn.Conv2d(1, 3, 1), nn.Conv2d(1, 3, 1)], FixedWeights([0.7, 0.3]))
    weights = network.over_volumes().memory([torch.zeros(3, 2, 4, 4)] * 2).weights
    assert weights.shape == (2, 2, 4, 4)
    torch.testing.assert_close(weights[0], torch.full((2, 4, 4), 0.7))
