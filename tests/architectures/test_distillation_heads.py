"""Heads: as many parameters as the paper reports, grids by hand, and their maps written out in torch."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnunet_ext.architectures.distillation_heads import (
    DistillationHead,
    LevelHeads,
    VectorHead,
    parameter_count,
    steps_to_full_resolution,
    stride_name,
)

ISOTROPIC = [(1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)]
ANISOTROPIC = [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)]


def heads_at_full_resolution(features, classes, *, strides=ISOTROPIC, shared=True):
    """The paper's: the encoder's levels before the bottleneck, the decoder's from half resolution down."""
    levels = len(features)

    def make_head(side, level):
        return DistillationHead(features[level], classes, steps_to_full_resolution(strides, level), nn.Conv3d)

    return LevelHeads(make_head, range(levels - 1), range(1, levels), shared=shared)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- how many parameters ---


@pytest.mark.parametrize(
    ("features", "classes", "expected"),
    [
        # One head for each of the five levels, with biases. Eight classes:
        #   1x1x1 convolutions: 8 (33 + 65 + 129 + 257 + 321) = 8 * 805              = 6440
        #   level 0, kernel 1: 8*8 + 8 = 72; levels 1 to 4, kernel 2: 4 (8*8*8 + 8)  = 2152
        ((32, 64, 128, 256, 320), 8, 8592),
        # Three: 3 (17 + 33 + 65 + 129 + 257) = 1503; 3*3 + 3 = 12; 4 (3*3*8 + 3)  = 300
        ((16, 32, 64, 128, 256), 3, 1815),
    ],
)
def test_shared_heads_have_as_many_parameters_as_the_paper_reports(features, classes, expected):
    assert parameter_count(heads_at_full_resolution(features, classes)) == expected


def test_separate_heads_have_those_of_three_levels_twice():
    # Levels 1, 2 and 3 have an encoder and a decoder head: 8 (65 + 129 + 257) + 3 (8*8*8 + 8) = 3608 + 1560 more
    heads = heads_at_full_resolution((32, 64, 128, 256, 320), 8, shared=False)
    assert parameter_count(heads) == 8592 + 3608 + 1560 == 13760


def test_heads_at_native_resolution_are_one_convolution():
    # 3 classes of 16 channels: 3 (16 + 1)
    head = DistillationHead(16, 3, (), nn.Conv3d)
    assert parameter_count(head) == 51
    assert len(head.upsample) == 0


def test_an_anisotropic_head_has_one_transposed_convolution_for_each_distinct_stride():
    # From level 4: (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2): two distinct ones of the four
    head = DistillationHead(5, 3, steps_to_full_resolution(ANISOTROPIC, 4), nn.Conv3d)
    assert sorted(head.upsample) == ["1x2x2", "2x2x2"]
    # 3 (5 + 1) = 18; 3*3*4 + 3 = 39; 3*3*8 + 3 = 75
    assert parameter_count(head) == 18 + 39 + 75
    for name, kernel in (("1x2x2", (1, 2, 2)), ("2x2x2", (2, 2, 2))):
        assert head.upsample[name].kernel_size == head.upsample[name].stride == kernel


def test_a_parameter_that_two_modules_share_counts_once():
    layer = nn.Linear(3, 4)  # 3*4 + 4
    assert parameter_count(nn.ModuleList([layer, layer])) == 16


# --- what they compute ---


def test_steps_to_full_resolution_by_hand():
    assert steps_to_full_resolution(ANISOTROPIC, 4) == [(1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)]
    assert steps_to_full_resolution(ANISOTROPIC, 2) == [(2, 2, 2), (1, 2, 2)]
    assert steps_to_full_resolution([[1, 1], [2, 1]], 1) == [(2, 1)]
    assert steps_to_full_resolution(ANISOTROPIC, 0) == [(1, 1, 1)]  # the authors' kernel of 1


def test_a_strides_name():
    assert stride_name((1, 2, 2)) == "1x2x2"


@pytest.mark.parametrize(
    ("strides", "grids"),
    [
        (ISOTROPIC, [(16, 32, 16), (8, 16, 8), (4, 8, 4), (2, 4, 2), (1, 2, 1)]),
        (ANISOTROPIC, [(4, 32, 16), (4, 16, 8), (2, 8, 4), (1, 4, 2), (1, 2, 1)]),
    ],
)
def test_every_level_is_up_sampled_to_the_grid_of_level_0(strides, grids):
    for level, grid in enumerate(grids):
        head = DistillationHead(4, 3, steps_to_full_resolution(strides, level), nn.Conv3d)
        assert head(random(2, 4, *grid)).shape == (2, 3, *grids[0])


@pytest.mark.parametrize(("conv_op", "grid"), [(nn.Conv2d, (4, 6)), (nn.Conv3d, (2, 4, 3))])
def test_without_steps_the_logits_stay_on_the_features_grid(conv_op, grid):
    feature = random(2, 4, *grid)
    head = DistillationHead(4, 3, (), conv_op)
    written_out = torch.einsum("oc...,bc...->bo...", head.classify.weight.flatten(1), feature.flatten(2))
    written_out = written_out + head.classify.bias[:, None]
    torch.testing.assert_close(head(feature).flatten(2), written_out)


def with_biases(head):
    """Random biases in place of the initial zeros, so that they count."""
    for seed, layer in enumerate((head.classify, *head.upsample.values())):
        layer.bias.data = random(len(layer.bias), seed=seed)
    return head


def test_two_equal_steps_use_the_same_weights_twice():
    head = with_biases(DistillationHead(4, 3, [(2, 2), (2, 2)], nn.Conv2d))
    feature = random(2, 4, 3, 5)
    up = head.upsample["2x2"]
    logits = F.conv2d(feature, head.classify.weight, head.classify.bias)
    for _ in range(2):
        logits = F.conv_transpose2d(logits, up.weight, up.bias, stride=2)
    assert torch.equal(head(feature), logits)


def test_different_steps_come_in_their_order():
    head = with_biases(DistillationHead(4, 3, [(2, 1), (1, 2), (2, 1)], nn.Conv2d))
    feature = random(2, 4, 3, 5)
    tall, wide = head.upsample["2x1"], head.upsample["1x2"]
    logits = F.conv2d(feature, head.classify.weight, head.classify.bias)
    logits = F.conv_transpose2d(logits, tall.weight, tall.bias, stride=(2, 1))
    logits = F.conv_transpose2d(logits, wide.weight, wide.bias, stride=(1, 2))
    logits = F.conv_transpose2d(logits, tall.weight, tall.bias, stride=(2, 1))
    assert torch.equal(head(feature), logits)


def test_initial_weights_are_he_normal_and_biases_zero():
    # Standard deviation sqrt(2 / (1 + 0.01^2) / fan-in); the 1x1x1 convolution's fan-in is its 256 channels
    torch.manual_seed(0)
    head = DistillationHead(256, 50, [(2, 2, 2)], nn.Conv3d)
    assert head.classify.weight.std().item() == pytest.approx((2 / 1.0001 / 256) ** 0.5, rel=0.02)
    assert head.classify.bias.abs().sum() == head.upsample["2x2x2"].bias.abs().sum() == 0


# --- vectors ---


@pytest.mark.parametrize("grid", [(4, 6), (2, 3, 4)])
def test_a_vector_is_a_1x1_convolution_and_the_mean_over_space(grid):
    head = VectorHead(5)
    head.project.bias.data = random(128)
    feature = random(2, 5, *grid)
    convolve = F.conv2d if len(grid) == 2 else F.conv3d
    kernel = head.project.weight.reshape(128, 5, *[1] * len(grid))
    mean = convolve(feature, kernel, head.project.bias).flatten(2).mean(2)
    assert head(feature).shape == (2, 128)
    torch.testing.assert_close(head(feature), mean)


@pytest.mark.parametrize("stride", [(2, 2), (1, 2), (3, 2)])
def test_up_sampling_by_convolutions_before_the_mean_is_a_linear_map_of_the_features_mean(stride):
    # Kernel = stride: each output voxel has one input voxel x and one kernel weight W[k], and every k occurs equally
    # often. The mean over space is then mean_k W[k] applied to the mean of x, plus the bias; twice, the map twice.
    feature = random(2, 5, 4, 3).double()
    classify, up = nn.Conv2d(5, 7, 1).double(), nn.ConvTranspose2d(7, 7, stride, stride).double()
    up_sampled_first = up(up(classify(feature))).mean(dim=(2, 3))
    vector = feature.mean(dim=(2, 3)) @ classify.weight[:, :, 0, 0].T + classify.bias
    for _ in range(2):
        vector = vector @ up.weight.mean(dim=(2, 3)) + up.bias
    torch.testing.assert_close(up_sampled_first, vector)


# --- one head a level ---


def make_counted_head(side, level):
    """A head of as many channels as the level's number plus one, which tells heads of levels apart."""
    return DistillationHead(level + 1, 2, (), nn.Conv2d)


def features_of(levels):
    return [random(1, level + 1, 2, 2, seed=level) for level in range(levels)]


def test_shared_heads_are_called_by_their_level():
    heads = LevelHeads(make_counted_head, range(3), range(1, 4), shared=True)
    assert heads.encoder_keys == {0: "level_0", 1: "level_1", 2: "level_2"}
    assert heads.decoder_keys == {1: "level_1", 2: "level_2", 3: "level_3"}
    assert sorted(heads.heads) == ["level_0", "level_1", "level_2", "level_3"]


def test_separate_heads_are_called_by_their_side_and_level():
    heads = LevelHeads(make_counted_head, range(3), range(1, 4), shared=False)
    assert sorted(heads.heads) == [f"{side}_{n}" for side, ns in (("decoder", "123"), ("encoder", "012")) for n in ns]


def test_only_levels_that_take_part_have_heads():
    assert sorted(LevelHeads(make_counted_head, range(0), range(1, 4)).heads) == ["level_1", "level_2", "level_3"]
    none = LevelHeads(make_counted_head, range(0), range(0))
    assert parameter_count(none) == 0
    assert none(features_of(3), features_of(4)) == ([], [])


@pytest.mark.parametrize("shared", [True, False])
def test_outputs_have_the_finest_level_first_and_the_bottleneck_last_in_the_decoder(shared):
    heads = LevelHeads(make_counted_head, (2, 0, 1), (3, 1, 2), shared=shared)  # in any order
    encoder = features_of(3)
    decoder = [feature + 1 for feature in features_of(4)]
    of_encoder, of_decoder = heads(encoder, decoder)
    e_keys = ["level_0", "level_1", "level_2"] if shared else ["encoder_0", "encoder_1", "encoder_2"]
    d_keys = ["level_1", "level_2", "level_3"] if shared else ["decoder_1", "decoder_2", "decoder_3"]
    d_features = decoder[1:]
    for found, keys, features in ((of_encoder, e_keys, encoder), (of_decoder, d_keys, d_features)):
        expected = [heads.heads[key](feature) for key, feature in zip(keys, features, strict=True)]
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
