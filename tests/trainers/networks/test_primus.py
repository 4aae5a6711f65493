"""nnU-Net's Primus as a part: its network, its schedule, and samples of its weights."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.primus import Primus

from nnunet_ext.trainers.names import TrainerNameError, trainer_class
from nnunet_ext.trainers.requirements import RequirementError


@pytest.fixture
def make_primus(make_trainer):
    """`make_primus(name, patch_size)`: a trainer of a 3D configuration, not initialized."""

    def make(name, patch_size=(8, 16, 16)):
        shape = make_trainer("nnUNetTrainer", initialize=False)
        given = deepcopy(shape.my_init_kwargs)
        given["plans"]["continue_training"] = False  # the constructor took it out
        given["plans"]["configurations"]["3d_fullres"] = {
            **given["plans"]["configurations"]["2d"],
            "patch_size": list(patch_size),
        }
        return trainer_class(f"nnUNetTrainer{name}")(**{**given, "configuration": "3d_fullres"})

    return make


def test_cyclical_samples_the_weights_of_primus_and_they_load_strictly(make_primus):
    trainer = make_primus("Cyclical1_Restart10_PrimusS_5epochs")
    trainer.initialize()
    trainer.inference_allowed_mirroring_axes = (0, 1, 2)
    trainer.network.train()
    assert type(trainer.plain_network) is Primus
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((2, 1, 8, 16, 16), generator=generator)
    target = torch.randint(3, image.shape, generator=generator).float()
    trainer.lr_scheduler.step(0)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(3e-3)  # the restart: ten times 3e-4
    assert np.isfinite(trainer.train_step({"data": image, "target": target})["loss"])
    assert [name for name, each in trainer.network.named_parameters() if each.grad is None] == []

    trainer.logger.log("mean_fg_dice", 0.5, 0)
    trainer.save_sample()
    [sample] = Path(trainer.output_folder).glob("checkpoint_c*.pth")
    network = type(trainer).build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 1, 3, enable_deep_supervision=False
    )
    network.load_state_dict(torch.load(sample, weights_only=False)["network_weights"])
    trainer.network.eval()
    with torch.no_grad():
        assert torch.equal(network.eval()(image), trainer.network(image))


def test_without_another_schedule_it_has_nnunets(make_primus):
    """Up to 3e-4 over 50 epochs, then (1 - (e - 50) / 950)^0.9; nnU-Net's own formulas."""
    trainer = make_primus("PrimusS")
    trainer.network = torch.nn.Linear(1, 1)
    optimizer, schedule = trainer.configure_optimizers()
    rates = {}
    for epoch in (0, 24, 49, 50, 525):
        schedule.step(epoch)
        rates[epoch] = optimizer.param_groups[0]["lr"]
    assert rates == {
        0: pytest.approx(3e-4 / 50),
        24: pytest.approx(1.5e-4),
        49: pytest.approx(3e-4),
        50: pytest.approx(3e-4),
        525: pytest.approx(3e-4 * 0.5**0.9),
    }
    assert not trainer.enable_deep_supervision
    assert trainer.weight_decay == 0.05


@pytest.mark.parametrize("part", ["DSD", "MCDropout", "Streaming", "VNet", "RMSprop"])
def test_parts_that_need_another_network_or_optimizer_are_refused_by_name(part):
    with pytest.raises(TrainerNameError, match=rf"(?s)(?=.*\bPrimusM\b)(?=.*\b{part}\b).*Leave one out"):
        trainer_class(f"nnUNetTrainer{part}_PrimusM")


def test_patches_of_parts_of_tokens_and_2d_are_refused(make_primus, make_trainer):
    with pytest.raises(ValueError, match=r"multiples of 8; found \(4, 16, 16\)\. Train a 3D"):
        make_primus("PrimusS", (4, 16, 16)).initialize()
    with pytest.raises(RequirementError, match="PrimusB needs a 3D configuration"):
        make_trainer("nnUNetTrainerPrimusB", initialize=False)
