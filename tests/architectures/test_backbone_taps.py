"""Feature taps of the literature's networks: the network's own output, and the levels of the released code."""

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo import is_dynamo_supported

from nnunet_ext.architectures.backbone import Backbone
from nnunet_ext.architectures.feature_taps import taps_of
from nnunet_ext.architectures.lcovnet import LCOVNetLevels
from nnunet_ext.architectures.segresnet import SegResNetLevels
from nnunet_ext.architectures.swin_unetr import SwinUNETRLevels
from nnunet_ext.architectures.unetr import UNETRLevels
from nnunet_ext.architectures.vnet import VNetLevels
from nnunet_ext.losses.self_distillation_objective import DistillationTerms, SelfDistillationLoss
from nnunet_ext.losses.targets import padded

STRIDES = [(1, 1), (1, 2), (2, 2), (2, 2), (2, 2)]
PATCH = (48, 64)
FEATURES = [4, 6, 8, 8, 8]

# The network; the channels of E_0 ... E_{n-2} and of D_0 ... D_{n-1}; the total stride of each level; by hand.
TWICE = [(1, 1), (2, 2), (4, 4), (8, 8), (16, 16)]
PLANNED = [(1, 1), (1, 2), (2, 4), (4, 8), (8, 16)]
NETWORKS = {
    "SegResNet": (
        lambda: SegResNetLevels(1, 3, strides=STRIDES, filters=4),  # four stages
        *([4, 8, 16], [4, 8, 16, 32], PLANNED[:4]),
    ),
    "VNet": (  # each decoder level has the skip's channels twice
        lambda: VNetLevels(1, 3, strides=STRIDES, filters=2),
        *([2, 4, 8, 16], [4, 8, 16, 32, 32], PLANNED),
    ),
    "UNETR": (  # the bottleneck is the transformer's output
        lambda: UNETRLevels(1, 3, patch_size=PATCH, filters=2, hidden=24),
        *([2, 4, 8, 16], [2, 4, 8, 16, 24], TWICE),
    ),
    "SwinUNETR": (  # what is at 1/32 takes no part
        lambda: SwinUNETRLevels(2, 1, 3, filters=12),
        *([12, 12, 24, 48], [12, 12, 24, 48, 96], TWICE),
    ),
    "LCOVNet": (
        lambda: LCOVNetLevels(1, 3, strides=STRIDES, features=FEATURES),
        *(FEATURES[:-1], FEATURES, PLANNED),
    ),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def network(name, *, deep_supervision=True):
    torch.manual_seed(0)
    return Backbone(NETWORKS[name][0](), 3, STRIDES, deep_supervision=deep_supervision)


def picture(size=PATCH):
    return torch.randn((2, 1, *size), generator=torch.Generator().manual_seed(0))


@every_network
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_the_segmentation_is_the_networks_own_bit_for_bit(name, deep_supervision):
    net = network(name, deep_supervision=deep_supervision).eval()
    with torch.no_grad():
        own, tapped = net(picture()), taps_of(net)(picture()).segmentation
    assert type(tapped) is type(own)
    pairs = zip(own, tapped, strict=True) if deep_supervision else [(own, tapped)]
    assert all(torch.equal(*pair) for pair in pairs)


@every_network
def test_features_have_the_channels_and_grids_of_the_levels(name):
    net = network(name)
    _, encoder_channels, decoder_channels, totals = NETWORKS[name]
    taps = taps_of(net)
    assert list(taps.levels.encoder_channels) == encoder_channels
    assert list(taps.levels.decoder_channels) == decoder_channels
    size = padded(picture(), taps.levels.multiple).shape[2:]
    grids = [tuple(length // step for length, step in zip(size, total, strict=True)) for total in totals]
    found = taps(picture())
    for side, channels in ((found.encoder, encoder_channels), (found.decoder, decoder_channels)):
        expected = [(2, *shape) for shape in zip(channels, grids, strict=False)]
        assert [(*feature.shape[:2], tuple(feature.shape[2:])) for feature in side] == expected
    product = [1, 1]
    for stride, total in zip(taps.levels.strides, totals, strict=True):
        product = [a * b for a, b in zip(product, stride, strict=True)]
        assert tuple(product) == total


def test_unetr_and_vnet_have_separate_heads_as_in_the_released_code():
    separate = {name: taps_of(network(name)).levels.separate_heads for name in NETWORKS}
    assert separate == {"SegResNet": False, "VNet": True, "UNETR": True, "SwinUNETR": False, "LCOVNet": False}


@every_network
def test_gradients_flow_from_every_feature(name):
    net = network(name)
    found = taps_of(net)(picture())
    for feature in (*found.encoder, *found.decoder):
        gradients = torch.autograd.grad(
            feature.square().sum(), list(net.parameters()), retain_graph=True, allow_unused=True
        )
        assert sum(gradient.abs().sum() for gradient in gradients if gradient is not None) > 0


@pytest.mark.skipif(not is_dynamo_supported(), reason="torch.compile does not run on this Python or system")
@pytest.mark.parametrize("name", ["SegResNet", "UNETR"])
def test_torch_compile_sees_one_graph(name):
    torch._dynamo.reset()
    net = network(name).eval()
    with torch.no_grad():
        compiled = torch.compile(lambda image: taps_of(net)(image), backend="eager", fullgraph=True)(picture())
        for found, expected in zip(compiled, taps_of(net)(picture()), strict=True):
            assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(found, expected, strict=True))


def test_where_a_network_pads_its_coarser_levels_are_taught_background_there():
    """3 voxels padded to 4: at half resolution the truth is that of voxel 1, and of voxel 3, which is padding."""
    truth = torch.ones(1, 1, 3, 3)
    loss = SelfDistillationLoss(F.mse_loss, lambda logits, target: target.flatten(), DistillationTerms(), (4, 4))
    half = loss.target_of(torch.zeros(1, 2, 2, 2), truth)
    assert half[0, 0].tolist() == [[1, 0], [0, 0]]
    assert loss.target_of(torch.zeros(1, 2, 3, 3), truth) is truth  # at the image's own resolution


def test_heads_of_segresnet_see_normalised_features_above_zero():
    """Its blocks end with a sum that nothing bounds; two groups of two channels each have mean 0 and deviation 1."""
    segresnet = NETWORKS["SegResNet"][0]()
    segresnet.groups = 2
    values = torch.tensor([1.0, 3.0, -10.0, 10.0]).reshape(1, 4, 1, 1)
    torch.testing.assert_close(
        segresnet.for_heads(values).flatten(), torch.tensor([0.0, 1.0, 0.0, 1.0]), rtol=0, atol=1e-4
    )
