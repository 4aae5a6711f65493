"""A training on labelled and unlabelled images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_ext.losses.ramps import ConstantRamp
from nnunet_ext.trainers.fewer_labels.unlabelled_cases import unlabelled_folder
from nnunet_ext.trainers.names import TrainerNameError, trainer_class

CURVE = "loss term MeanTeacher"


def images(seed):
    return {"data": torch.randn((2, 1, 32, 32), generator=torch.Generator().manual_seed(seed))}


def train(trainer, random_batch, steps):
    """The weights after each step as one vector each, and what the steps returned."""
    trainer.network.train()
    trainer.on_train_epoch_start()
    weights, found = [], []
    for step in range(steps):
        found.append(trainer.train_step(random_batch(trainer, step)))
        weights.append(flat(trainer.network))
    return weights, found


def flat(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_a_weight_of_0_is_the_training_without_it_bit_for_bit(make_trainer, random_batch):
    ours = make_trainer("nnUNetTrainerMeanTeacher_member0", consistency_ramp=ConstantRamp(0))
    ours.unlabelled = iter([])  # is never asked for a batch
    plain = make_trainer("nnUNetTrainer_member0")
    weights, found = train(ours, random_batch, 2)
    plain.network.train()
    expected = [plain.train_step(random_batch(plain, step))["loss"] for step in range(2)]
    assert [step["loss"] for step in found] == expected
    assert torch.equal(weights[-1], flat(plain.network))


@pytest.mark.parametrize("regions", [False, True])
def test_unlabelled_images_change_the_training_and_are_forgotten_after_the_step(make_trainer, random_batch, regions):
    """The weight begins at 0.1 exp(-5)."""
    trainer = make_trainer("nnUNetTrainerMeanTeacher_member0", regions=regions, entropy_ramp=ConstantRamp(1))
    trainer.unlabelled = map(images, range(2))
    _, found = train(trainer, random_batch, 2)
    assert trainer.loss_with_terms.weights.item() == pytest.approx(0.1 * np.exp(-5))
    assert found[1][CURVE] > 0
    assert trainer.consistency.images is None
    assert next(trainer.unlabelled, None) is None  # one batch per iteration
    trainer.network.eval()
    batch = random_batch(trainer, 5)
    with torch.no_grad():
        base = trainer.loss.base(trainer.network(batch["data"]), batch["target"])
    assert trainer.validation_step(batch)["loss"] == pytest.approx(base.item())


def test_the_teacher_is_the_average_with_1_minus_1_by_t_plus_1(make_trainer, random_batch):
    """The decay of the first four updates is 0, 1/2, 2/3 and 3/4: the mean of all."""
    trainer = make_trainer("nnUNetTrainerMeanTeacher_member0", consistency_ramp=ConstantRamp(0))
    weights, _ = train(trainer, random_batch, 4)
    torch.testing.assert_close(flat(trainer.ema.module), torch.stack(weights).mean(0))
    cut = make_trainer("nnUNetTrainerMeanTeacher_member0", consistency_ramp=ConstantRamp(0), ema_decay=0.5)
    first, second, third = train(cut, random_batch, 3)[0]
    torch.testing.assert_close(flat(cut.ema.module), 0.25 * first + 0.25 * second + 0.5 * third)


def test_the_bound_of_the_entropy_grows_from_three_quarters(make_trainer):
    trainer = make_trainer("nnUNetTrainerMeanTeacher_100epochs")
    bounds = []
    for epoch in (0, 20, 40, 99):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        bounds.append(trainer.consistency.most_entropy)
    assert bounds == pytest.approx([0.75 + 0.25 * np.exp(-5), 0.75 + 0.25 * np.exp(-1.25), 1, 1])


def test_without_preprocessed_images_the_message_names_the_command(make_trainer, preprocessed_cases):
    trainer = make_trainer("nnUNetTrainerMeanTeacher")
    preprocessed_cases(trainer)
    with pytest.raises(FileNotFoundError, match="preprocess-unlabelled -d Dataset001_Tiny -c 2d -p nnUNetPlans"):
        trainer.get_dataloaders()


def test_batches_are_patches_of_the_unlabelled_images(make_trainer, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    trainer = make_trainer("nnUNetTrainerMeanTeacher")
    folder = unlabelled_folder(Path(trainer.preprocessed_dataset_folder))
    folder.mkdir()
    image = np.full((1, 3, 40, 40), 5, np.float32)
    blocks = {"chunks": image.shape, "blocks": image.shape}
    nnUNetDatasetBlosc2.save_case(
        image, np.zeros(image.shape, np.int16), {"class_locations": {}}, str(folder / "scan"), **blocks
    )
    batch = next(trainer.batches_without_labels())
    assert batch["data"].shape == (2, 1, 32, 32)
    assert batch["data"].median() == 5
    assert list(batch["keys"]) == ["scan", "scan"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nnUNetTrainerMeanTeacher_EMA", "checkpoint_ema.pth"),
        ("nnUNetTrainerMeanTeacher_LoRA", "checkpoint_ema.pth"),
        ("nnUNetTrainerMeanTeacher_DSD", "what the network returns in training"),
    ],
)
def test_names_that_make_no_sense_are_refused(name, message):
    with pytest.raises(TrainerNameError, match=message):
        trainer_class(name)


def test_a_resumed_training_has_the_same_teacher(make_trainer, random_batch, tmp_path):
    trainer = make_trainer("nnUNetTrainerMeanTeacher_member0", consistency_ramp=ConstantRamp(0))
    train(trainer, random_batch, 2)
    trainer.save_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    resumed = make_trainer("nnUNetTrainerMeanTeacher_member0", initialize=False)
    resumed.load_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    assert torch.equal(flat(resumed.ema.module), flat(trainer.ema.module))
