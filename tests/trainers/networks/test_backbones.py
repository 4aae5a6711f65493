"""Parts that train one of the literature's networks: by name, in a mixture, and from a checkpoint."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_ext.architectures.backbone import Backbone
from nnunet_ext.trainers.compatibility import TrainerNameError
from nnunet_ext.trainers.names import trainer_class
from nnunet_ext.trainers.networks.planned_sizes import planned_sizes

PARTS = ["SegResNet", "VNet", "UNETR", "LCOVNet"]  # SwinUNETR needs larger patches than the fixture's
WITH_SWIN = [*PARTS, "SwinUNETR"]
every_part = pytest.mark.parametrize("part", PARTS)


def changed(configuration, **arguments):
    """A copy of a configuration with other arguments of the network."""
    found = deepcopy(configuration.configuration)
    found["architecture"]["arch_kwargs"] |= arguments
    return ConfigurationManager(found)


@every_part
@pytest.mark.parametrize("regions", [False, True])
def test_it_trains(make_trainer, random_batch, part, regions):
    trainer = make_trainer(f"nnUNetTrainer{part}", regions=regions)
    assert isinstance(trainer.plain_network, Backbone)
    trainer.network.train()
    assert np.isfinite(trainer.train_step(random_batch(trainer, 0))["loss"])
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    assert trainer.network(torch.zeros(1, 1, 32, 32)).shape == (1, 2 if regions else 3, 32, 32)


@every_part
def test_without_deep_supervision_it_returns_one_output(make_trainer, random_batch, part):
    trainer = make_trainer(f"nnUNetTrainer{part}_NoDeepSupervision")
    trainer.network.train()
    batch = random_batch(trainer, 0)
    batch["target"] = batch["target"][0]
    assert np.isfinite(trainer.train_step(batch)["loss"])


@every_part
def test_prediction_rebuilds_it_from_the_checkpoints_plans(make_trainer, part):
    trainer = make_trainer(f"nnUNetTrainer{part}")
    file = Path(trainer.output_folder) / "checkpoint.pth"
    trainer.save_checkpoint(str(file))
    checkpoint = torch.load(file, weights_only=False)
    builder = trainer_class(checkpoint["trainer_name"])
    network = builder.build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 1, 3, enable_deep_supervision=False
    )
    network.load_state_dict(checkpoint["network_weights"])  # strictly
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(network.eval()(image), trainer.network.eval()(image)[0])


@every_part
def test_a_mixture_takes_it_beside_another_network(make_trainer, part):
    shape = make_trainer("nnUNetTrainer", initialize=False)
    network = trainer_class(f"nnUNetTrainerStreaming_{part}_DeepLab").build_network_architecture(
        shape.plans_manager, shape.configuration_manager, 1, 3, True
    )
    assert Backbone in {type(classifier) for classifier in network.classifiers}
    outputs = network.eval()(torch.zeros(2, 1, 32, 32))
    assert [output.shape for output in outputs] == [(2, 3, 32, 32), (2, 3, 16, 16)]


@pytest.mark.parametrize("part", WITH_SWIN)
@pytest.mark.parametrize("other", ["MCDropout", "DeepLab", "BN", "MAE"])
def test_parts_that_need_the_planned_network_are_refused_by_name(part, other):
    with pytest.raises(TrainerNameError, match=rf"(?s)(?=.*\b{part}\b)(?=.*\b{other}\b).*Leave one out"):
        trainer_class(f"nnUNetTrainer{other}_{part}")


@pytest.mark.parametrize("part", [*WITH_SWIN, "DeepLab"])
def test_plans_without_the_sizes_of_a_unet_are_refused(make_trainer, part):
    shape = make_trainer("nnUNetTrainer", initialize=False)
    configuration = changed(shape.configuration_manager)
    del configuration.configuration["architecture"]["arch_kwargs"]["strides"]
    builder = trainer_class(f"nnUNetTrainer{part}")
    with pytest.raises(ValueError, match=rf"{part} takes its sizes .* which has none\. Choose plans of a U-Net"):
        builder.build_network_architecture(None, configuration, 1, 3, False)


@pytest.mark.parametrize("strides", [[[1, 1]], [[2, 2], [2, 2]]])
def test_plans_without_a_stage_at_full_resolution_are_refused(make_trainer, strides):
    shape = make_trainer("nnUNetTrainer", initialize=False)
    with pytest.raises(ValueError, match="VNet needs plans with at least two stages, the first with stride 1"):
        planned_sizes(changed(shape.configuration_manager, strides=strides), "VNet")


def with_patch(configuration, patch_size):
    """A copy of a configuration with another patch size."""
    return ConfigurationManager({**configuration.configuration, "patch_size": list(patch_size)})


@pytest.mark.parametrize(("part", "patch_size"), [("UNETR", (7, 64)), ("SwinUNETR", (15, 64))])
def test_patches_that_would_be_mostly_padding_are_refused(make_trainer, part, patch_size):
    configuration = with_patch(make_trainer("nnUNetTrainer", initialize=False).configuration_manager, patch_size)
    builder = trainer_class(f"nnUNetTrainer{part}")
    with pytest.raises(ValueError, match=rf"{part} reduces every axis by \d+, .*{patch_size[0]}, 64.*mostly padding"):
        builder.build_network_architecture(None, configuration, 1, 3, False)


def test_swin_unetr_needs_two_positions(make_trainer):
    configuration = make_trainer("nnUNetTrainer", initialize=False).configuration_manager
    builder = trainer_class("nnUNetTrainerSwinUNETR")
    with pytest.raises(ValueError, match=r"SwinUNETR reduces every axis by 32 .* longer than that.*found \(32, 32\)"):
        builder.build_network_architecture(None, configuration, 1, 3, False)
    larger = with_patch(configuration, (33, 32))
    network = builder.build_network_architecture(None, larger, 1, 3, True)
    sum(output.square().mean() for output in network(torch.randn(1, 1, 33, 32))).backward()
