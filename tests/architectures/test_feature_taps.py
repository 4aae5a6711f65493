"""Tapping does not change the output, and each level's feature has the expected shape."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_ext.architectures.feature_taps import taps_of

FEATURES = (4, 6, 8, 10)
CLASSES = 3

# strides and image, by name; the image is as small as instance normalisation of the bottleneck allows
GRIDS = {
    "2D": (((1, 1), (2, 2), (2, 2), (2, 2)), (16, 32)),
    "2D, anisotropic": (((1, 1), (2, 2), (1, 2), (2, 1)), (16, 16)),
    "3D": (((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)), (16, 16, 16)),
    "3D, anisotropic": (((1, 1, 1), (1, 2, 2), (2, 2, 2), (1, 2, 2)), (4, 16, 16)),
}
# the grid of each level, worked out by hand: the one before divided by the stride
LEVELS = {
    "2D": [(16, 32), (8, 16), (4, 8), (2, 4)],
    "2D, anisotropic": [(16, 16), (8, 8), (8, 4), (4, 4)],
    "3D": [(16, 16, 16), (8, 8, 8), (4, 4, 4), (2, 2, 2)],
    "3D, anisotropic": [(4, 16, 16), (4, 8, 8), (2, 4, 4), (2, 2, 2)],
}


def unet(architecture, strides, *, deep_supervision=True, seed=0):
    torch.manual_seed(seed)
    dimensions, levels = len(strides[0]), len(strides)
    blocks = "n_blocks_per_stage" if architecture is ResidualEncoderUNet else "n_conv_per_stage"
    return architecture(
        input_channels=2,
        n_stages=levels,
        features_per_stage=FEATURES[:levels],
        conv_op=nn.Conv2d if dimensions == 2 else nn.Conv3d,
        kernel_sizes=[[3] * dimensions] * levels,
        strides=strides,
        num_classes=CLASSES,
        n_conv_per_stage_decoder=[1] * (levels - 1),
        conv_bias=True,
        norm_op=nn.InstanceNorm2d if dimensions == 2 else nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
        **{blocks: [1] * levels},
    )


def image_of(grid):
    return torch.randn((2, 2, *grid), generator=torch.Generator().manual_seed(1))


def as_list(segmentation):
    return segmentation if isinstance(segmentation, list) else [segmentation]


@pytest.mark.parametrize("architecture", [PlainConvUNet, ResidualEncoderUNet])
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("grids", GRIDS)
def test_the_segmentation_is_the_networks_own_bit_for_bit(architecture, grids, training, deep_supervision):
    strides, grid = GRIDS[grids]
    network = unet(architecture, strides, deep_supervision=deep_supervision).train(training)
    image = image_of(grid)
    with torch.no_grad():
        own, tapped = network(image), taps_of(network)(image).segmentation
    assert type(tapped) is type(own) is (list if deep_supervision else torch.Tensor)
    assert len(as_list(tapped)) == len(as_list(own))
    assert all(torch.equal(*pair) for pair in zip(as_list(own), as_list(tapped), strict=True))


@pytest.mark.parametrize("architecture", [PlainConvUNet, ResidualEncoderUNet])
@pytest.mark.parametrize("grids", GRIDS)
def test_encoder_and_decoder_features_of_a_level_have_the_same_shape(architecture, grids):
    strides, grid = GRIDS[grids]
    network = unet(architecture, strides)
    features = taps_of(network)(image_of(grid))
    expected = [(2, channels, *level) for channels, level in zip(FEATURES, LEVELS[grids], strict=True)]
    assert [tuple(feature.shape) for feature in features.encoder] == expected[:-1]
    assert [tuple(feature.shape) for feature in features.decoder] == expected  # the bottleneck is its last
    assert [tuple(logits.shape) for logits in features.segmentation] == [
        (2, CLASSES, *level) for level in LEVELS[grids][:-1]
    ]


@pytest.mark.parametrize("architecture", [PlainConvUNet, ResidualEncoderUNet])
def test_features_are_those_that_the_stages_computed(architecture):
    strides, grid = GRIDS["3D, anisotropic"]
    network = unet(architecture, strides)
    computed = {}
    for level, stage in enumerate(network.encoder.stages):
        stage.register_forward_hook(lambda _, __, output, level=level: computed.update({("encoder", level): output}))
    for position, stage in enumerate(network.decoder.stages):  # the coarsest first
        level = len(strides) - 2 - position
        stage.register_forward_hook(lambda _, __, output, level=level: computed.update({("decoder", level): output}))
    features = taps_of(network)(image_of(grid))
    assert all(feature is computed["encoder", level] for level, feature in enumerate(features.encoder))
    bottleneck = computed["encoder", len(strides) - 1]
    decoder = [computed["decoder", level] for level in range(len(strides) - 1)]
    assert all(
        feature is expected for feature, expected in zip(features.decoder, [*decoder, bottleneck], strict=True)
    )


def test_gradients_flow_from_every_level_to_the_first_convolution():
    strides, grid = GRIDS["2D"]
    network = unet(PlainConvUNet, strides)
    first = next(network.encoder.parameters())
    features = taps_of(network)(image_of(grid))
    for feature in (*features.encoder, *features.decoder):
        (gradient,) = torch.autograd.grad(feature.square().sum(), first, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_deep_supervision_can_be_switched_between_calls():
    strides, grid = GRIDS["2D"]
    network, image = unet(PlainConvUNet, strides), image_of(grid)
    finest = taps_of(network)(image).segmentation[0]
    network.decoder.deep_supervision = False
    assert torch.equal(taps_of(network)(image).segmentation, finest)


# --- refused ---


@pytest.mark.parametrize("architecture", [PlainConvUNet, ResidualEncoderUNet])
def test_three_levels_are_enough(architecture):
    network = unet(architecture, GRIDS["2D"][0][:3])
    assert taps_of(network).network is network


def test_two_levels_are_refused():
    with pytest.raises(ValueError, match=r"at least 3 levels.*found 2\. Raise n_stages in the plans"):
        taps_of(unet(PlainConvUNet, GRIDS["2D"][0][:2]))


class EncoderOfAnotherMake(nn.Module):
    """Has a decoder of nnU-Net's, but an encoder that lacks its number of channels."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(1, 2, 3)
        self.decoder = unet(PlainConvUNet, GRIDS["2D"][0]).decoder


class DecoderOfAnotherMake(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = unet(PlainConvUNet, GRIDS["2D"][0]).encoder
        self.decoder = nn.Conv2d(2, 3, 1)


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (nn.Conv2d(1, 2, 3), "Conv2d"),
        (EncoderOfAnotherMake(), "EncoderOfAnotherMake"),
        (DecoderOfAnotherMake(), "DecoderOfAnotherMake"),
    ],
)
def test_a_network_without_nnunets_encoder_and_decoder_is_refused(network, name):
    with pytest.raises(
        ValueError, match=rf"PlainConvUNet, ResidualEncoderUNet\).*; found {name}\. Leave the part out"
    ):
        taps_of(network)
