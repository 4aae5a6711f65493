"""Self-distillation on networks that are not nnU-Net's U-Net, and on its residual encoder."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_ext.architectures.backbone import Backbone
from nnunet_ext.architectures.distillation_heads import parameter_count
from nnunet_ext.architectures.feature_taps import taps_of
from nnunet_ext.architectures.swin_unetr import SwinUNETRLevels
from nnunet_ext.architectures.unetr import UNETRLevels
from nnunet_ext.architectures.vnet import VNetLevels
from nnunet_ext.trainers.names import TrainerNameError, trainer_class

NETWORKS = ["SegResNet", "VNet", "UNETR", "SwinUNETR", "LCOVNet"]
SUPERVISING = ["SDD", "SDE", "DS", "DSD_SumSupervision", "DSD_Temperature2", "DSD_AveragedTeacher"]
ABLATIONS = [*SUPERVISING, "DSD_ReversedTeacher", "DSD_FeatureL2", "DSD_FullResolution_FeatureL2"]
PATCH = (40, 48)  # neither is a multiple of 32, so that the transformers pad


@pytest.fixture
def distilling(make_trainer, dataset_like, initialized):
    """`distilling(name)`: a trainer of plans with a patch that is large enough for every network."""

    def make(name, **attributes):
        shape = make_trainer(f"nnUNetTrainer{name}", initialize=False)
        plans = deepcopy(shape.my_init_kwargs["plans"])
        plans["configurations"]["2d"]["patch_size"] = list(PATCH)
        trainer = dataset_like(shape, plans=plans)
        for attribute, value in attributes.items():
            setattr(trainer, attribute, value)
        return initialized(trainer)

    return make


def batch(trainer, seed=0):
    """Noise and random labels at the two resolutions that nnU-Net supervises, at one without deep supervision."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(3, (2, 1, *PATCH), generator=generator).float()
    targets = [target, target[..., ::2, ::2]] if trainer.enable_deep_supervision else target
    return {"data": torch.randn((2, 1, *PATCH), generator=generator), "target": targets}


def without_gradient(trainer):
    """The names of parameters without a gradient, but for those of the coarsest deep supervision, which is off."""
    coarsest = "plain.decoder.heads.0."
    return [
        name
        for name, parameter in trainer.network.named_parameters()
        if parameter.grad is None and not name.startswith(coarsest)
    ]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("part", ["DSD", "DSD_FullResolution"])
def test_a_step_trains_every_parameter(distilling, network, part):
    trainer = distilling(f"{part}_{network}")
    assert isinstance(trainer.plain_network, Backbone)
    losses = [trainer.train_step(batch(trainer, seed))["loss"] for seed in range(2)]
    assert np.isfinite(losses).all()
    assert without_gradient(trainer) == []


@pytest.mark.parametrize("part", ABLATIONS)
def test_every_form_trains_a_network_with_separate_heads(distilling, part):
    trainer = distilling(f"{part}_UNETR_NoDeepSupervision")
    assert np.isfinite(trainer.train_step(batch(trainer))["loss"])
    heads = trainer.network.distillation_heads["segmentation"].heads
    assert not any(name.startswith("level") for name in heads)


@pytest.mark.parametrize("network", NETWORKS)
def test_evaluation_and_checkpoints_are_those_of_the_plain_network(distilling, network):
    trainer = distilling(f"DSD_{network}")
    trainer.train_step(batch(trainer))
    file = Path(trainer.output_folder) / "checkpoint.pth"
    trainer.save_checkpoint(str(file))
    weights = torch.load(file, weights_only=False)["network_weights"]
    builder = trainer_class(f"nnUNetTrainer{network}")  # as the plain training and stock's prediction build it
    plain = builder.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 1, 3, False)
    plain.load_state_dict(weights)  # strictly
    trainer.network.eval()
    trainer.set_deep_supervision_enabled(False)
    with torch.no_grad():
        assert torch.equal(trainer.network(batch(trainer)["data"]), plain.eval()(batch(trainer)["data"]))


def on_cpu(build, *arguments, **options):
    """MONAI's Swin UNETR reads values while it is built."""
    with torch.device("cpu"):
        return build(*arguments, **options)


# With three classes: a 1x1x1 convolution of c channels 3 (c + 1); the transposed one of kernel 1 3*3 + 3 = 12, of
# kernel 2 3*3*8 + 3 = 75. Channels of the released code: UNETR 16 and tokens of 768, Swin UNETR 48, V-Net 16.
PUBLISHED = {
    # E_0: 51 + 12; E_1, E_2, E_3: 99, 195, 387; D_1, D_2, D_3 the same; D_4: 2307; seven times 75
    "UNETR": (lambda: UNETRLevels(1, 3, patch_size=(96,) * 3, filters=16, hidden=768), 63 + 2 * 681 + 2307 + 7 * 75),
    # shared: E_0: 147 + 12; levels 1 to 4: 147, 291, 579, 1155; four times 75
    "SwinUNETR": (lambda: on_cpu(SwinUNETRLevels, 3, 1, 3, filters=48), 159 + 147 + 291 + 579 + 1155 + 4 * 75),
    # E_0: 51 + 12; E_1, E_2, E_3: 99, 195, 387; D_1, D_2, D_3: 195, 387, 771; D_4: 771; seven times 75
    "VNet": (
        lambda: VNetLevels(1, 3, strides=[(1,) * 3, *[(2,) * 3] * 4], filters=16),
        63 + 681 + 195 + 387 + 771 + 771 + 7 * 75,
    ),
}


@pytest.mark.parametrize("network", PUBLISHED)
def test_heads_have_as_many_parameters_as_in_the_released_code(make_trainer, network):
    build, expected = PUBLISHED[network]
    strides = [(1,) * 3, *[(2,) * 3] * 4]
    with torch.device("meta"):  # no memory for 90 million weights
        network = build()
    levels = taps_of(Backbone(network, 3, strides, deep_supervision=False)).levels
    trainer = make_trainer("nnUNetTrainerDSD_FullResolution", initialize=False)
    assert parameter_count(trainer.segmentation_heads(levels)) == expected


def test_vector_heads_are_shared_where_the_channels_agree(distilling):
    """UNETR's released code has a head for each level; V-Net's decoder has twice the encoder's channels."""
    vectors = {
        network: sorted(distilling(f"DSD_FeatureL2_{network}").network.distillation_heads["vectors"].heads)
        for network in ("UNETR", "SwinUNETR")
    }
    assert vectors == {network: ["level_1", "level_2", "level_3"] for network in vectors}


def test_heads_that_cannot_be_shared_are_refused(distilling):
    with pytest.raises(ValueError, match="found 4 in the encoder and 8 in the decoder at level 1"):
        distilling("DSD_VNet", shared_heads=True)


def test_a_detached_teacher_with_a_head_of_its_own_is_refused(distilling):
    with pytest.raises(ValueError, match="trains its head; found none for encoder_3"):
        distilling("DSD_UNETR", detach_teacher=True)


def test_a_deeplab_has_no_levels():
    with pytest.raises(TrainerNameError, match=r"DSD needs a U-Net whose levels it can read .*DeepLab does not"):
        trainer_class("nnUNetTrainerDSD_DeepLab")


def test_distillation_trains_nnunets_residual_encoder(make_trainer, dataset_like, initialized, random_batch):
    shape = make_trainer("nnUNetTrainerDSD", initialize=False)
    plans = deepcopy(shape.my_init_kwargs["plans"])
    architecture = plans["configurations"]["2d"]["architecture"]
    architecture["network_class_name"] = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    architecture["arch_kwargs"]["n_blocks_per_stage"] = architecture["arch_kwargs"].pop("n_conv_per_stage")
    trainer = initialized(dataset_like(shape, plans=plans))
    assert type(trainer.plain_network).__name__ == "ResidualEncoderUNet"
    assert np.isfinite(trainer.train_step(random_batch(trainer, 0))["loss"])
    image = random_batch(trainer, 0)["data"]
    trainer.network.eval()
    with torch.no_grad():
        pairs = zip(trainer.network(image), trainer.plain_network(image), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
