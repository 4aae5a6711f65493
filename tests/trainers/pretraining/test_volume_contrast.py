"""VoCo: crops and overlaps of a batch, the figures of perfect vectors, learning, its checkpoint."""

import numpy as np
import pytest
import torch

from nnunet_ext.files.checkpoints import EXTRA_STATE_KEY, load_checkpoint

NAME = "nnUNetTrainerVoCo"


def test_a_batch_has_nine_base_and_five_target_crops(make_trainer, batch_of):
    trainer = make_trainer(NAME, initialize=False)
    batch = batch_of()
    crops, overlaps = trainer.inputs_and_targets(batch)
    assert crops.shape == (2, 9 + 5, 1, 8, 8)  # a patch of 32 with strides of 4
    assert torch.equal(crops[1, 0], batch["data"][1, :, 4:12, 4:12])
    torch.testing.assert_close(overlaps.sum(dim=2), torch.ones(2, 5))
    assert not torch.equal(overlaps[0], overlaps[1])
    assert make_trainer("nnUNetTrainerVoCo_BaseCrops2", initialize=False).grid.counts == (2, 2)


def test_vectors_whose_cosines_are_the_overlaps_have_no_loss(make_trainer):
    trainer = make_trainer(NAME, initialize=False)
    overlaps = torch.eye(9)[None, :5]  # every target lies on a base crop
    vectors = torch.cat((torch.eye(9)[None], 2 * overlaps), dim=1)
    assert float(trainer.training_loss(vectors, overlaps)) == pytest.approx(0, abs=2e-6)
    assert trainer.validation_figures(vectors, overlaps) == {"overlap error": 0, "crops found": 1}


def test_equal_images_in_all_crops_have_a_finite_loss(make_trainer):
    trainer = make_trainer(NAME)
    assert np.isfinite(trainer.train_step({"data": torch.zeros(2, 1, 32, 32)})["loss"])


def test_it_learns(make_trainer, batch_of):
    torch.manual_seed(0)
    trainer = make_trainer(NAME, vector_size=64)
    slope = torch.linspace(-2, 2, 32)
    image = (slope[:, None] + slope.square()[None]).expand(2, 1, 32, 32) + 0.1 * batch_of()["data"]
    losses = [float(trainer.train_step({"data": image})["loss"]) for _ in range(40)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:3])


def test_a_checkpoint_keeps_the_linear_layers_apart(train, file_of):
    trainer = train(f"{NAME}_1epochs")
    checkpoint = load_checkpoint(file_of(trainer, "checkpoint_final.pth"))
    stored = checkpoint[EXTRA_STATE_KEY]["projection"]
    assert torch.equal(stored["0.weight"], trainer.embedding_network.projection[0].weight)
    assert not any("projection" in name for name in checkpoint["network_weights"])
    assert not file_of(trainer, "reconstructions").exists()  # there is nothing to draw
