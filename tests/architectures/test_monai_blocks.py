"""Networks of MONAI's blocks are MONAI's networks where all strides are 2; the transformers always are."""

import pytest
import torch
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.vnet import VNet

from nnunet_ext.architectures.segresnet import SegResNetLevels
from nnunet_ext.architectures.swin_unetr import SwinUNETRLevels
from nnunet_ext.architectures.unetr import UNETRLevels
from nnunet_ext.architectures.vnet import VNetLevels


def ours_with_the_weights_of(theirs, ours, groups):
    """Copies a state dict; `groups` maps prefixes of our names to those of theirs."""
    names = {}
    for name in ours.state_dict():
        prefix = max((each for each in groups if name.startswith(each)), key=len)
        names[name] = groups[prefix] + name[len(prefix) :]
    weights = theirs.state_dict()
    assert set(names.values()) == set(weights)
    ours.load_state_dict({name: weights[their_name] for name, their_name in names.items()})
    return ours.eval()


@pytest.mark.parametrize("axes", [2, 3])
def test_segresnet(axes):
    torch.manual_seed(0)
    theirs = SegResNet(axes, init_filters=8, in_channels=2, out_channels=3).eval()
    strides = [(1,) * axes, *[(2,) * axes] * 4]  # the last stage of the plans is not used
    groups = {"stem": "convInit.conv", "classify.0": "conv_final.0", "classify.2": "conv_final.2.conv"}
    for stage in range(4):
        groups[f"encoder_stages.{stage}"] = f"down_layers.{stage}"
        groups[f"encoder_stages.{stage}.0."] = f"down_layers.{stage}.0.conv."
        groups[f"decoder_stages.{stage}"] = f"up_layers.{stage}.0"
        groups[f"to_finer.{stage}.0"] = f"up_samples.{stage}.0.conv"
    ours = ours_with_the_weights_of(theirs, SegResNetLevels(2, 3, strides=strides, filters=8), groups)
    image = torch.randn(1, 2, *[32] * axes)
    with torch.no_grad():
        torch.testing.assert_close(ours.features(image).logits, theirs(image))


@pytest.mark.parametrize("axes", [2, 3])
def test_vnet(axes):
    torch.manual_seed(0)
    theirs = VNet(axes, in_channels=2, out_channels=3, dropout_dim=axes).eval()
    strides = [(1,) * axes, *[(2,) * axes] * 5]
    groups = {"enter": "in_tr", "classify": "out_tr"}
    groups |= {f"down.{index}": f"down_tr{width}" for index, width in enumerate((32, 64, 128, 256))}
    groups |= {f"up.{index}": f"up_tr{width}" for index, width in enumerate((256, 128, 64, 32))}
    ours = ours_with_the_weights_of(theirs, VNetLevels(2, 3, strides=strides, filters=16), groups)
    image = torch.randn(1, 2, *[32] * axes)
    with torch.no_grad():
        torch.testing.assert_close(ours.features(image).logits, theirs(image))


def test_vnet_rounds_its_channels_up_to_a_multiple_of_the_images():
    """Three image channels: 18 instead of 16, as the first residual connection repeats them six times."""
    net = VNetLevels(3, 2, strides=[(1, 1), (2, 2)], filters=16)
    assert net.enter(torch.zeros(1, 3, 4, 4)).shape == (1, 18, 4, 4)


@pytest.mark.parametrize("axes", [2, 3])
def test_unetr(axes):
    net = UNETRLevels(2, 3, patch_size=(32,) * axes, filters=4, hidden=24).eval()
    image = torch.randn(1, 2, *[32] * axes)
    with torch.no_grad():
        torch.testing.assert_close(net.features(image).logits, net.unetr(image))


def test_unetrs_position_embeddings_are_interpolated_for_another_size():
    """From two positions along an axis to four: between both ends at 1/4 and 3/4 of the way, constant beyond."""
    net = UNETRLevels(1, 2, patch_size=(32, 16), filters=2, hidden=12)
    learned = net.unetr.vit.patch_embedding.position_embeddings
    assert learned.shape == (1, 2, 12)
    with torch.no_grad():
        learned[:, 0], learned[:, 1] = 0.0, 4.0
    assert net.positions((4, 1))[0, 0, :, 0].tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("axes", [2, 3])
def test_swin_unetr(axes):
    net = SwinUNETRLevels(axes, 2, 3, filters=12).eval()
    image = torch.randn(1, 2, *[32] * (axes - 1), 64)
    with torch.no_grad():
        torch.testing.assert_close(net.features(image).logits, net.swin(image))
