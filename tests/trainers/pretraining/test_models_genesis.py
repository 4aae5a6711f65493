"""Models Genesis: the loss over the whole image, and learning to restore."""

import numpy as np
import pytest
import torch

NAME = "nnUNetTrainerModelsGenesis"


def test_the_loss_counts_every_voxel(make_trainer):
    trainer = make_trainer(NAME, initialize=False)
    image = torch.zeros(2, 1, 32, 32)
    outputs = image.clone()
    outputs[:, :, :8] = 2.0  # a quarter
    everywhere = torch.ones_like(image)
    assert float(trainer.training_loss(outputs, [image, image, everywhere])) == pytest.approx(1.0)
    assert float(trainer.training_loss(image, [outputs, image, everywhere])) == 0  # what was seen does not count


def test_constant_images_have_a_finite_loss_and_figure(make_trainer):
    trainer = make_trainer(NAME)
    with torch.no_grad():
        step = trainer.validation_step({"data": torch.full((2, 1, 32, 32), -1.0)})
    assert np.isfinite(step["loss"])
    assert np.isfinite(step["validation explained variance"])


def test_changes_depend_on_epoch_and_iteration_and_those_of_validation_do_not(make_trainer, batch_of):
    trainer = make_trainer(NAME)
    seen = {}
    for epoch in (0, 1):
        trainer.current_epoch = epoch
        for stage, start in (("train", trainer.on_train_epoch_start), ("val", trainer.on_validation_epoch_start)):
            start()
            seen[stage, epoch] = trainer.inputs_and_targets(batch_of())[0]
    assert torch.equal(seen["val", 0], seen["val", 1])
    assert not torch.equal(seen["train", 0], seen["train", 1])


def test_it_learns(make_trainer):
    torch.manual_seed(0)
    trainer = make_trainer(NAME)
    image = torch.linspace(-1, 1, 32).expand(2, 1, 32, 32).contiguous()
    losses = [float(trainer.train_step({"data": image})["loss"]) for _ in range(40)]
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:3])  # half of the grey values are reversed, at random
