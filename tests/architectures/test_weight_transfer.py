"""Pre-trained weights in nnU-Net's U-Nets: which tensor arrives where, and what an adapted kernel computes."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_ext.architectures.weight_transfer import input_block, transfer_weights

FEATURES = (4, 6, 8)


def unet(kind=ResidualEncoderUNet, *, channels=1, features=FEATURES, kernels=None, seed=0):
    """A 3D U-Net with random weights; nnU-Net's networks list each layer under two to four names."""
    torch.manual_seed(seed)
    kernels = kernels or ((3, 3, 3),) * len(features)
    blocks = "n_blocks_per_stage" if kind is ResidualEncoderUNet else "n_conv_per_stage"
    return kind(
        channels, len(features), features, nn.Conv3d, kernels, (1, *(2,) * (len(features) - 1)),
        **{blocks: 1}, num_classes=2, n_conv_per_stage_decoder=1, conv_bias=True,
        norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
    ).eval()  # fmt: skip


def bottleneck(network, image):
    with torch.no_grad():
        return network.encoder(image)[-1]


def image(channels=1, seed=5):
    return torch.randn((1, channels, 8, 8, 8), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[PlainConvUNet, ResidualEncoderUNet])
def kind(request):
    return request.param


def test_the_encoder_arrives_and_the_decoder_stays(kind):
    source, target = unet(kind, seed=1), unet(kind, seed=2)
    untouched = {name: tensor.clone() for name, tensor in target.decoder.stages.state_dict().items()}
    report = transfer_weights(target, source.state_dict())
    assert torch.equal(bottleneck(target, image()), bottleneck(source, image()))
    assert all(torch.equal(target.decoder.stages.state_dict()[name], tensor) for name, tensor in untouched.items())
    assert not report.adapted
    assert not report.left
    assert not report.unused
    assert len(report.unchanged) == report.wanted("encoder.") == len(list(target.encoder.parameters()))


def test_with_the_decoder_all_but_the_segmentation_layers_arrives(kind):
    source, target = unet(kind, seed=1), unet(kind, seed=2)
    own_layers = [layer.weight.clone() for layer in target.decoder.seg_layers]
    report = transfer_weights(target, source.state_dict(), with_decoder=True)
    assert report.arrived("decoder.") == report.wanted("decoder.") > 0
    assert all(
        torch.equal(layer.weight, own) for layer, own in zip(target.decoder.seg_layers, own_layers, strict=True)
    )
    target.decoder.seg_layers.load_state_dict(source.decoder.seg_layers.state_dict())
    with torch.no_grad():
        assert torch.equal(target(image()), source(image()))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "architecture."])
def test_names_of_wrapped_networks_are_understood(prefix):
    source, target = unet(seed=1), unet(seed=2)
    report = transfer_weights(target, {prefix + name: tensor for name, tensor in source.state_dict().items()})
    assert not report.left
    assert torch.equal(bottleneck(target, image()), bottleneck(source, image()))


@pytest.mark.parametrize("kept", ["all_modules", "conv", "decoder.encoder"])
def test_a_tensor_is_found_under_any_of_its_names(kept):
    """A file that lists each layer once: nnssl's own tools and others leave the duplicates out."""
    source, target = unet(seed=1), unet(seed=2)
    weights = source.state_dict()
    if kept == "decoder.encoder":
        weights = {name: tensor for name, tensor in weights.items() if name.startswith("decoder.")}
    else:
        dropped = {"all_modules": (".conv.", ".norm."), "conv": (".all_modules.",)}[kept]
        weights = {name: tensor for name, tensor in weights.items() if not any(word in name for word in dropped)}
    report = transfer_weights(target, weights)
    assert not report.left
    assert torch.equal(bottleneck(target, image()), bottleneck(source, image()))


def test_of_a_sparse_pre_training_the_trained_duplicate_is_taken():
    """SparK's conversion leaves `conv` and `decoder.encoder` at their initial weights; `all_modules` is trained."""
    source, untrained, target = unet(seed=1), unet(seed=3), unet(seed=2)
    weights = source.state_dict()
    dead = {
        name: tensor
        for name, tensor in untrained.state_dict().items()
        if name.startswith("decoder.encoder.") or ".conv." in name or ".norm." in name
    }
    transfer_weights(target, {**weights, **dead})
    assert torch.equal(bottleneck(target, image()), bottleneck(source, image()))


# --- shapes ---


@pytest.mark.parametrize("channels", [2, 3])
def test_a_stem_for_more_channels_gives_the_same_for_copies_of_the_channel(kind, channels):
    source, target = unet(kind, seed=1), unet(kind, channels=channels, seed=2)
    report = transfer_weights(target, source.state_dict())
    assert len(report.adapted) == 1
    kernel = input_block(target.encoder).conv.weight
    assert torch.allclose(kernel, input_block(source.encoder).conv.weight.expand_as(kernel) / channels)
    copies = image().expand(-1, channels, -1, -1, -1)
    torch.testing.assert_close(bottleneck(target, copies), bottleneck(source, image()), rtol=1e-5, atol=1e-5)


def test_a_stem_for_fewer_channels_gives_the_same_for_copies_of_the_channel():
    source, target = unet(channels=3, seed=1), unet(channels=1, seed=2)
    transfer_weights(target, source.state_dict())
    copies = image().expand(-1, 3, -1, -1, -1)
    torch.testing.assert_close(bottleneck(target, image()), bottleneck(source, copies), rtol=1e-5, atol=1e-5)


def test_a_kernel_that_loses_its_extent_gives_the_same_inside_a_constant_stretch():
    """3x3x3 to 1x3x3: away from the border, a volume of equal slices gives what it gave."""
    source, target = unet(seed=1), unet(kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)), seed=2)
    transfer_weights(target, source.state_dict())
    volume = image()[:, :, :1].expand(-1, -1, 8, -1, -1)
    before, after = (input_block(network.encoder).conv for network in (source, target))
    with torch.no_grad():
        torch.testing.assert_close(after(volume)[:, :, 1:-1], before(volume)[:, :, 1:-1], rtol=1e-5, atol=1e-5)


def test_a_kernel_that_gains_an_extent_gives_the_same_everywhere():
    source, target = unet(kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)), seed=1), unet(seed=2)
    transfer_weights(target, source.state_dict())
    torch.testing.assert_close(bottleneck(target, image()), bottleneck(source, image()), rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_left_with_the_reason():
    source, target = unet(features=(4, 6), seed=1), unet(features=(4, 6, 8), seed=2)
    report = transfer_weights(target, source.state_dict())
    assert {name.split(".")[2] for name in report.left} == {"2"}  # the third stage
    assert set(report.left.values()) == {"not in the file"}
    other = transfer_weights(unet(features=(4, 5, 8)), source.state_dict())
    assert "(6,) in the file, (5,) in the network" in other.left.values()


def test_only_the_image_is_spread_over_channels():
    """The first stage of 4 instead of 5 features has another number of inputs in the next one: no adaptation."""
    report = transfer_weights(unet(features=(5, 6, 8)), unet(features=(4, 6, 8)).state_dict())
    assert not report.adapted


def test_stages_beyond_those_of_the_network_are_not_used():
    source, target = unet(features=(4, 6, 8), seed=1), unet(features=(4, 6), seed=2)
    report = transfer_weights(target, source.state_dict())
    assert not report.left
    assert any(name.startswith("encoder.stages.2.") for name in report.unused)


def test_weights_that_are_no_numbers_are_refused():
    weights = unet().state_dict()
    weights["encoder.stem.convs.0.all_modules.0.weight"] = torch.full((4, 1, 3, 3, 3), float("nan"))
    with pytest.raises(ValueError, match=r"NaN or Inf in encoder\.stem\.convs\.0\.all_modules\.0\.weight"):
        transfer_weights(unet(), weights)
