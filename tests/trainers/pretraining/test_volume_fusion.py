"""VolumeFusion: twice the images, one output per coefficient, the loss of present and absent classes."""

import numpy as np
import pytest
import torch

NAME = "nnUNetTrainerVolumeFusion"


def logits_of(classes, *, margin):
    return margin * torch.nn.functional.one_hot(classes[:, 0], 5).movedim(-1, 1).float()


def test_the_loaders_give_two_images_for_each_of_the_batch(make_trainer, preprocessed_cases):
    trainer = make_trainer(NAME)
    preprocessed_cases(trainer)
    training, validation = trainer.get_dataloaders()
    for loader in (training, validation):
        batch = next(loader)
        assert len(batch["data"]) == 4
        image, (_, classes) = trainer.inputs_and_targets(batch)
        assert image.shape == classes.shape == (2, 1, 32, 32)
    assert trainer.network(image).shape == (2, 5, 32, 32)


def test_an_image_is_the_sum_of_one_of_the_first_half_and_its_partner_of_the_second(make_trainer):
    trainer = make_trainer(NAME, initialize=False)
    images = torch.stack([torch.full((1, 32, 32), value) for value in (4.0, 8.0, 0.0, 0.0)])
    image, (_, classes) = trainer.inputs_and_targets({"data": images})
    assert torch.equal(image[0], classes[0].float())
    assert torch.equal(image[1], 2 * classes[1].float())


def test_all_right_is_minus_one_and_equal_outputs_are_log_5_minus_the_dice_of_a_guess(make_trainer):
    trainer = make_trainer(NAME, initialize=False)
    half = torch.zeros((2, 1, 8, 8), dtype=torch.int64)
    half[:, :, 4:] = 3  # classes 1, 2 and 4 are absent
    assert float(trainer.training_loss(logits_of(half, margin=1e3), [half, half])) == pytest.approx(-1, abs=1e-6)
    # a fifth everywhere: Dice of a present class 2 * 0.2 * 32 / (32 + 0.2 * 64), of an absent one 0
    guess = 2 / 5 * (12.8 / 44.8)
    found = float(trainer.training_loss(torch.zeros(2, 5, 8, 8), [half, half]))
    assert found == pytest.approx(np.log(5) - guess, abs=1e-5)


def test_it_learns(make_trainer):
    torch.manual_seed(0)
    trainer = make_trainer(NAME)
    images = torch.stack([torch.full((1, 32, 32), value) for value in (1.0, 1.0, -1.0, -1.0)])
    losses = [float(trainer.train_step({"data": images})["loss"]) for _ in range(30)]
    assert np.mean(losses[-5:]) < 0.6 * losses[0]
