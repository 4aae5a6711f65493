"""The vectors of crops: all encoder levels, a plain state dict, and a decoder that does not train."""

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_ext.architectures.crop_embedding import CropEmbedding
from nnunet_ext.pretext.crops import crop_grid


def network(features=16):
    torch.manual_seed(0)
    plain = PlainConvUNet(
        1, 3, (4, 8, 8), nn.Conv2d, 3, (1, 2, 2), (1, 1, 1), 1, (1, 1), True, nn.InstanceNorm2d, {"affine": True}
    )
    return CropEmbedding(plain, features)


def test_a_vector_per_crop_of_every_image():
    assert network()(torch.randn(2, 5, 1, 9, 11)).shape == (2, 5, 16)


def test_residual_encoders_take_the_crops_of_a_grid():
    """Their skips halve sizes rounded down, their convolutions rounded up."""
    sides = crop_grid((41, 30), (4, 4), 3).sides
    assert sides == (12, 8)
    residual = ResidualEncoderUNet(
        1, 3, (4, 8, 8), nn.Conv2d, 3, (1, 2, 2), (1, 1, 1), 1, (1, 1), True, nn.InstanceNorm2d, {"affine": True}
    )
    assert CropEmbedding(residual, 16)(torch.randn(1, 3, 1, *sides)).shape == (1, 3, 16)


def test_equal_crops_have_equal_vectors_wherever_they_are_in_the_batch():
    crops = torch.randn(1, 4, 1, 8, 8)
    crops = torch.cat((crops, crops.flip(1)))
    vectors = network().eval()(crops)
    torch.testing.assert_close(vectors[0], vectors[1].flip(0))


def test_the_state_dict_is_that_of_the_plain_network():
    embedding = network()
    assert embedding.state_dict().keys() == embedding.plain.state_dict().keys()


def test_the_encoder_and_the_linear_layers_train_and_the_decoder_does_not():
    embedding = network()
    embedding(torch.randn(2, 3, 1, 8, 8)).square().sum().backward()
    trained = {name for name, parameter in embedding.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, parameter in embedding.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith(("plain.decoder.stages", "plain.decoder.transp")) for name in trained)
    assert any(name.startswith("plain.encoder.stages.0") for name in trained)
