"""What all networks of `Backbone` promise: any image size, nnU-Net's list of logits, strict loading."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunet_ext.architectures.backbone import Backbone, LevelFeatures, LevelNetwork, total_strides
from nnunet_ext.architectures.lcovnet import LCOVNetLevels
from nnunet_ext.architectures.segresnet import SegResNetLevels
from nnunet_ext.architectures.swin_unetr import SwinUNETRLevels
from nnunet_ext.architectures.unetr import UNETRLevels
from nnunet_ext.architectures.vnet import VNetLevels
from nnunet_ext.losses.targets import padded

# Plans, among them some whose first axis is coarse and needs padding for the transformers.
STRIDES = {
    "2d": [(1, 1)] + [(2, 2)] * 5,
    "3d": [(1, 1, 1)] + [(2, 2, 2)] * 4,
    "anisotropic": [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)],
    "shallow": [(1, 1), (2, 2), (2, 2)],
}
PATCHES = {"2d": (64, 96), "3d": (32, 48, 32), "anisotropic": (8, 64, 64), "shallow": (32, 64)}
ODD_SIZES = {"2d": (65, 37), "3d": (17, 33, 20), "anisotropic": (7, 45, 50), "shallow": (33, 18)}

NETWORKS = {
    "SegResNet": lambda strides, patch: SegResNetLevels(2, 3, strides=strides, filters=4),
    "VNet": lambda strides, patch: VNetLevels(2, 3, strides=strides, filters=2),
    "UNETR": lambda strides, patch: UNETRLevels(2, 3, patch_size=patch, filters=2, hidden=24),
    "SwinUNETR": lambda strides, patch: SwinUNETRLevels(len(patch), 2, 3, filters=12),
    "LCOVNet": lambda strides, patch: LCOVNetLevels(
        2, 3, strides=strides, features=[4, 6, 8, 8, 8, 8][: len(strides)]
    ),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
every_plan = pytest.mark.parametrize("plan", STRIDES)


def network(name, plan, *, seed=0, deep_supervision=False):
    torch.manual_seed(seed)
    levels = NETWORKS[name](STRIDES[plan], PATCHES[plan])
    return Backbone(levels, 3, STRIDES[plan], deep_supervision=deep_supervision)


def picture(plan, size=None):
    generator = torch.Generator().manual_seed(0)
    return torch.randn((2, 2, *(size or PATCHES[plan])), generator=generator)


def unet(plan):
    conv_op = nn.Conv2d if len(PATCHES[plan]) == 2 else nn.Conv3d
    stages = len(STRIDES[plan])
    return PlainConvUNet(2, stages, [4] * stages, conv_op, 3, STRIDES[plan], 1, 3, 1, deep_supervision=True)


@every_network
@every_plan
def test_logits_have_the_size_of_the_image_whatever_it_is(name, plan):
    net = network(name, plan).eval()
    with torch.no_grad():
        for size in (PATCHES[plan], ODD_SIZES[plan]):
            assert net(picture(plan, size)).shape == (2, 3, *size)


@every_network
@every_plan
def test_deep_supervision_has_the_shapes_of_nnunets_own_network(name, plan):
    image = picture(plan)
    with torch.no_grad():
        ours, theirs = network(name, plan, deep_supervision=True)(image), unet(plan)(image)
    assert isinstance(ours, list)
    assert [output.shape for output in ours] == [output.shape for output in theirs]


@every_network
def test_deep_supervision_is_switched_where_nnunet_switches_it(name):
    net, image = network(name, "shallow").eval(), picture("shallow")
    with torch.no_grad():
        plain = net(image)
        net.decoder.deep_supervision = True
        outputs = net(image)
    assert len(outputs) == 2
    assert torch.equal(outputs[0], plain)


@every_network
@every_plan
def test_gradients_reach_every_parameter(name, plan):
    """Some are zero: those of a bias or an unused channel that the next norm subtracts again."""
    net = network(name, plan, deep_supervision=True)
    sum((output**3).sum() for output in net(picture(plan))).backward()
    without = [parameter for parameter, value in net.named_parameters() if value.grad is None]
    assert without == []
    weights = {parameter: value.grad.abs().max() for parameter, value in net.named_parameters() if value.ndim > 1}
    assert [parameter for parameter, size in weights.items() if size == 0] == []


@every_network
@every_plan
def test_weights_load_strictly_into_the_network_of_prediction(name, plan):
    trained = network(name, plan, deep_supervision=True).eval()
    loaded = network(name, plan, seed=1).eval()
    loaded.load_state_dict(trained.state_dict())
    with torch.no_grad():
        assert torch.equal(loaded(picture(plan)), trained(picture(plan))[0])


@every_network
def test_it_compiles_without_a_break_and_runs_under_autocast(name):
    net, image = network(name, "shallow").eval(), picture("shallow")
    with torch.no_grad():
        compiled = torch.compile(net, backend="eager", fullgraph=True)(image)
        torch.testing.assert_close(compiled, net(image))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert net(image).isfinite().all()


# --- padding and levels, on a network whose result is known ---


class Averages(LevelNetwork):
    """Logits are the image; its coarser level is at a third and holds means over 3x3 blocks."""

    multiple = (3, 3)
    level_strides = ((3, 3),)
    decoder_channels = (1, 1)

    def features(self, image):
        self.seen = image
        return LevelFeatures(image, [image], [image, nn.functional.avg_pool2d(image, 3)])


def averages(strides):
    net = Backbone(Averages(), 1, strides, deep_supervision=True)
    for head in net.decoder.heads:
        nn.init.ones_(head.weight)
        nn.init.zeros_(head.bias)
    return net


def test_zeros_are_put_behind_the_image_and_cropped_again():
    net, image = averages([(1, 1), (3, 3), (2, 2)]), torch.ones(1, 1, 4, 6)
    logits, coarse = net(image)
    assert net.network.seen.shape == (1, 1, 6, 6)
    assert net.network.seen[0, 0, :, 0].tolist() == [1, 1, 1, 1, 0, 0]
    assert torch.equal(logits, image)
    assert coarse[0, 0].tolist() == [[1, 1], [pytest.approx(1 / 3)] * 2]  # 4 / 3, rounded up, by 6 / 3


def test_an_image_that_fits_is_not_copied():
    image = torch.zeros(1, 1, 8, 8)
    assert padded(image, (4, 2)) is image


def test_levels_of_another_resolution_are_averaged_over_areas():
    """Plans that go on to a sixth: 12 / 6 = 2 positions, each the mean of 2x2 of the network's coarsest level."""
    net, image = averages([(1, 1), (3, 3), (2, 2), (2, 2)]), torch.arange(144.0).reshape(1, 1, 12, 12)
    _, third, sixth = net(image)
    torch.testing.assert_close(third, nn.functional.avg_pool2d(image, 3))
    torch.testing.assert_close(sixth, nn.functional.avg_pool2d(image, 6))


def test_strides_multiply_along_each_axis():
    assert total_strides([(1, 1), (1, 2), (2, 2)]) == [(1, 1), (1, 2), (2, 4)]
