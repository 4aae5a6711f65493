"""Epochs and iterations that a name asks for."""

import pytest


def test_epochs_of_the_name(make_trainer):
    assert make_trainer("nnUNetTrainer_7epochs", initialize=False).num_epochs == 7


def test_nnunets_schedule_ends_with_the_last_epoch_of_the_name(make_trainer):
    # nnU-Net's decay over T = 7 epochs: 0.01 * (1 - e/7)^0.9; the last one is 0.01 * (1/7)^0.9 = 0.001735
    trainer = make_trainer("nnUNetTrainer_7epochs")
    rates = []
    for epoch in range(7):
        trainer.lr_scheduler.step(epoch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01 * (1 - epoch / 7) ** 0.9 for epoch in range(7)])
    assert rates[-1] == pytest.approx(0.001735, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "training", "validation"),
    [
        ("nnUNetTrainer_250iters", 250, 50),  # nnU-Net's own numbers
        ("nnUNetTrainer_50iters", 50, 10),
        ("nnUNetTrainer_13iters", 13, 2),  # 2.6, rounded down
        ("nnUNetTrainer_4iters", 4, 1),  # at least one
        ("nnUNetTrainer_1iters", 1, 1),
    ],
)
def test_iterations_of_the_name_and_a_fifth_of_them_for_validation(make_trainer, name, training, validation):
    trainer = make_trainer(name, initialize=False)
    assert trainer.num_iterations_per_epoch == training
    assert trainer.num_val_iterations_per_epoch == validation


def test_epochs_and_iterations_are_independent(make_trainer):
    trainer = make_trainer("nnUNetTrainer_5iters_8epochs", initialize=False)
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (8, 5)


def test_a_part_alone_leaves_the_other_numbers_to_nnunet(make_trainer):
    assert make_trainer("nnUNetTrainer_5iters", initialize=False).num_epochs == 1000
    trainer = make_trainer("nnUNetTrainer_8epochs", initialize=False)
    assert (trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (250, 50)
