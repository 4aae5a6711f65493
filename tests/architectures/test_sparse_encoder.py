"""nnU-Net's encoders on visible voxels: hidden ones have no influence, and without any it is the plain encoder."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from dynamic_network_architectures.building_blocks.residual import BottleneckD
from torch import nn

from nnunet_ext.architectures.masked_autoencoder import Densification, SparseMaskedAutoencoder
from nnunet_ext.architectures.sparse_encoder import VisibleVoxels, require_sparse, visible_features
from nnunet_ext.masking.blocks import random_visible_blocks, visible_voxels

ISOTROPIC = {"shape": (16, 16, 16), "strides": [[1] * 3, [2] * 3, [2] * 3], "kernels": [[3] * 3] * 3}
ANISOTROPIC = {
    "shape": (6, 16, 32),
    "strides": [[1] * 3, [1, 2, 2], [2, 2, 4]],
    "kernels": [[1, 3, 3], [1, 3, 3], [3, 3, 3]],
}
PLANE = {"shape": (16, 24), "strides": [[1] * 2, [2] * 2, [2] * 2], "kernels": [[3] * 2] * 3}
GEOMETRIES = pytest.mark.parametrize("geometry", [ISOTROPIC, ANISOTROPIC, PLANE], ids=["3d", "anisotropic", "2d"])
NETWORKS = pytest.mark.parametrize("network", ["plain", "residual", "bottleneck", "nonlin first"])


def unet(network, geometry, **changes):
    """A small network with nnU-Net's plans for this geometry and random weights, also in its norms."""
    axes = len(geometry["shape"])
    residual = network in ("residual", "bottleneck")
    kwargs = {
        "input_channels": 1,
        "n_stages": 3,
        "features_per_stage": [4, 6, 6],  # the last without a projection in its residual block
        "conv_op": nn.Conv3d if axes == 3 else nn.Conv2d,
        "kernel_sizes": geometry["kernels"],
        "strides": geometry["strides"],
        "num_classes": 1,
        "n_conv_per_stage_decoder": 1,
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d if axes == 3 else nn.InstanceNorm2d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        ("n_blocks_per_stage" if residual else "n_conv_per_stage"): 2,
        **({"block": BottleneckD, "bottleneck_channels": 4} if network == "bottleneck" else {}),
        **({"nonlin_first": True} if network == "nonlin first" else {}),
        **changes,
    }
    torch.manual_seed(0)
    built = (ResidualEncoderUNet if residual else PlainConvUNet)(**kwargs)
    for name, parameter in built.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, 1.0, 0.3)
    return built


def block_size(geometry):
    return [torch.tensor(column).prod().item() for column in zip(*geometry["strides"], strict=True)]


def image_and_blocks(geometry, ratio=0.5):
    generator = torch.Generator().manual_seed(0)
    grid = [size // block for size, block in zip(geometry["shape"], block_size(geometry), strict=True)]
    image = torch.randn((2, 1, *geometry["shape"]), generator=generator)
    return image, random_visible_blocks(2, grid, ratio, generator)


@NETWORKS
@GEOMETRIES
def test_with_nothing_hidden_features_are_those_of_the_plain_network(network, geometry):
    encoder = unet(network, geometry).encoder
    image, blocks = image_and_blocks(geometry, ratio=0.0)
    found = visible_features(encoder, image, VisibleVoxels(blocks))
    for level, plain in zip(found, encoder(image), strict=True):
        torch.testing.assert_close(level, plain, rtol=0, atol=1e-5)


@NETWORKS
@GEOMETRIES
def test_hidden_voxels_influence_no_feature(network, geometry):
    encoder = unet(network, geometry).encoder
    image, blocks = image_and_blocks(geometry)
    hidden = visible_voxels(blocks, geometry["shape"]) == 0
    before = visible_features(encoder, image, VisibleVoxels(blocks))
    after = visible_features(encoder, torch.where(hidden, 1e4 * image + 7, image), VisibleVoxels(blocks))
    for level, perturbed in zip(before, after, strict=True):
        assert torch.equal(level, perturbed)
        assert level[(visible_voxels(blocks, level.shape[2:]) == 0).expand_as(level)].eq(0).all()
    # the plain encoder does look at them
    changed = torch.where(hidden, image + 7, image)
    assert not torch.equal(encoder(changed)[-1], encoder(image)[-1])


@NETWORKS
def test_visible_voxels_influence_the_features_of_their_own_sample_only(network):
    encoder = unet(network, ISOTROPIC).encoder
    image, blocks = image_and_blocks(ISOTROPIC)
    visible = visible_voxels(blocks, ISOTROPIC["shape"]) == 1
    before = visible_features(encoder, image, VisibleVoxels(blocks))
    changed = image.clone()
    changed[0][visible[0]] += torch.randn(int(visible[0].sum()))
    for level, after in zip(before, visible_features(encoder, changed, VisibleVoxels(blocks)), strict=True):
        assert not torch.equal(level[0], after[0])
        assert torch.equal(level[1], after[1])


def test_blocks_finer_than_the_bottleneck_leave_it_dense_and_still_hide_their_voxels():
    """The released code: 16 voxels with a bottleneck of stride 32; here 2 with 4."""
    encoder = unet("residual", ISOTROPIC).encoder
    blocks = random_visible_blocks(1, (8, 8, 8), 0.5, torch.Generator().manual_seed(0))
    image = torch.randn(1, 1, 16, 16, 16)
    hidden = visible_voxels(blocks, (16, 16, 16)) == 0
    before = visible_features(encoder, image, VisibleVoxels(blocks))
    after = visible_features(encoder, torch.where(hidden, image + 7, image), VisibleVoxels(blocks))
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert before[2].ne(0).all()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"norm_op": nn.BatchNorm3d}, "BatchNorm3d in encoder"),
        ({"nonlin": nn.Sigmoid, "nonlin_kwargs": {}}, "Sigmoid in encoder"),
    ],
)
def test_layers_that_would_mix_or_fill_hidden_voxels_are_refused(changes, found):
    with pytest.raises(ValueError, match=found):
        require_sparse(unet("plain", ISOTROPIC, **changes).encoder)


def test_a_network_without_nnunets_encoder_is_refused():
    with pytest.raises(ValueError, match="found Conv3d"):
        require_sparse(nn.Conv3d(1, 1, 1))


# --- the auto-encoder ---


def autoencoder(geometry, kind=None, network="residual"):
    torch.manual_seed(1)
    return SparseMaskedAutoencoder(unet(network, geometry), block_size(geometry), kind or Densification())


def with_mask(image, blocks):
    return torch.cat([image, visible_voxels(blocks, image.shape[2:])], dim=1)


@GEOMETRIES
def test_hidden_voxels_do_not_influence_their_own_reconstruction(geometry):
    network = autoencoder(geometry)
    image, blocks = image_and_blocks(geometry)
    hidden = visible_voxels(blocks, geometry["shape"]) == 0
    first = network(with_mask(image, blocks))
    assert first.shape == image.shape
    assert torch.equal(first, network(with_mask(torch.where(hidden, image * 50, image), blocks)))


@pytest.mark.parametrize(
    ("kind", "tokens", "convolutions"),
    [
        (Densification(), 3, 2),
        (Densification(mask_token=False), 0, 2),
        (Densification(convolution=False), 3, 0),
        (Densification(mask_token=False, convolution=False), 0, 0),
    ],
    ids=["whole", "no token", "no convolution", "neither"],
)
def test_each_step_of_the_densification_is_a_switch(kind, tokens, convolutions):
    """Level 0 has a token but no convolution."""
    network = autoencoder(ISOTROPIC, kind)
    names = network.densification.state_dict()
    assert sum("token" in name for name in names) == tokens
    assert sum("projection.weight" in name for name in names) == convolutions
    for name, value in names.items():
        if "token" in name:
            assert 0 < value.abs().max() <= 0.02


def test_hidden_voxels_become_the_token_and_then_pass_the_convolution():
    level = autoencoder(ISOTROPIC).densification[1]
    visible = torch.zeros(1, 1, 4, 4, 4)
    visible[..., :2] = 1
    features = torch.randn(1, 6, 4, 4, 4) * visible
    nn.init.dirac_(level.projection.weight)  # the convolution returns what it gets
    nn.init.zeros_(level.projection.bias)
    dense = level(features, visible)
    normalised = nn.functional.instance_norm(features[..., :2])
    torch.testing.assert_close(dense[..., :2], normalised)
    torch.testing.assert_close(dense[..., 2:], level.token.reshape(1, 6, 1, 1, 1).expand(1, 6, 4, 4, 2))


def test_the_state_dict_is_the_plain_networks_under_both_names_of_each_layer():
    network = autoencoder(ISOTROPIC)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    image, blocks = image_and_blocks(ISOTROPIC)
    network(with_mask(image, blocks)).square().mean().backward()
    before = network.plain.encoder.stem.convs[0].conv.weight.clone()
    optimizer.step()
    weights = network.state_dict()
    assert weights.keys() == network.plain.state_dict().keys()
    stem = "encoder.stem.convs.0"
    assert not torch.equal(weights[f"{stem}.conv.weight"], before)
    for name in (f"{stem}.all_modules.0.weight", f"decoder.{stem}.conv.weight"):
        assert torch.equal(weights[name], weights[f"{stem}.conv.weight"])
    fresh = unet("residual", ISOTROPIC)
    fresh.load_state_dict(weights)  # strict
    nothing_hidden = torch.ones_like(blocks)
    for plain, sparse in zip(
        fresh.encoder(image), visible_features(network.encoder, image, VisibleVoxels(nothing_hidden)), strict=True
    ):
        torch.testing.assert_close(plain, sparse, rtol=0, atol=1e-5)


def test_it_compiles_to_one_graph():
    network = autoencoder(ANISOTROPIC)
    image, blocks = image_and_blocks(ANISOTROPIC)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(with_mask(image, blocks)), network(with_mask(image, blocks)))


def test_mixed_precision_reconstructs_the_same():
    network = autoencoder(ISOTROPIC)
    image, blocks = image_and_blocks(ISOTROPIC)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = network(with_mask(image, blocks))
    mixed.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.encoder.parameters())
    torch.testing.assert_close(mixed.float(), network(with_mask(image, blocks)), rtol=0, atol=0.1)
