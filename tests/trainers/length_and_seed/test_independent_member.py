"""Members of a deep ensemble differ from each other, and each can be repeated."""

import random
from pathlib import Path

import numpy as np
import torch


def initial_weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.network.parameters()])


def draws():
    """One number of each generator that augmentation and dropout use."""
    return random.random(), float(np.random.random()), float(torch.rand(()))


def draws_of_epochs(trainer, epochs):
    drawn = []
    for epoch in epochs:
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        drawn.append(draws())
    return drawn


def test_a_member_begins_with_the_same_weights_whatever_was_drawn_before(make_trainer):
    first = initial_weights(make_trainer("nnUNetTrainer_member2"))
    draws()
    assert torch.equal(initial_weights(make_trainer("nnUNetTrainer_member2")), first)


def test_members_begin_with_different_weights(make_trainer):
    weights = [initial_weights(make_trainer(f"nnUNetTrainer_member{k}")) for k in (0, 1, 2)]
    for other in weights[1:]:
        assert not torch.equal(weights[0], other)
    assert not torch.equal(weights[1], weights[2])


def test_members_draw_different_numbers_and_so_do_epochs(make_trainer):
    drawn = [
        number
        for k in (0, 1)
        for epoch in draws_of_epochs(make_trainer(f"nnUNetTrainer_member{k}"), range(3))
        for number in epoch
    ]
    assert len(set(drawn)) == 2 * 3 * 3  # members x epochs x generators


def test_a_member_repeats_its_numbers(make_trainer):
    first = draws_of_epochs(make_trainer("nnUNetTrainer_member1"), range(3))
    draws()
    assert draws_of_epochs(make_trainer("nnUNetTrainer_member1"), range(3)) == first


def test_a_resumed_run_draws_the_numbers_of_an_uninterrupted_one(make_trainer, run_epochs):
    whole = draws_of_epochs(make_trainer("nnUNetTrainer_member1"), range(3))
    interrupted = make_trainer("nnUNetTrainer_member1", save_every=1)
    run_epochs(interrupted, 2)
    resumed = make_trainer("nnUNetTrainer_member1", initialize=False)
    resumed.load_checkpoint(str(Path(interrupted.output_folder) / "checkpoint_latest.pth"))
    assert resumed.current_epoch == 2
    assert draws_of_epochs(resumed, [2]) == whole[2:]


def test_ranks_of_one_training_draw_different_numbers(make_trainer):
    # Two GPUs that draw the same numbers would augment the same way.
    first, second = (make_trainer("nnUNetTrainer_member1", local_rank=rank) for rank in (0, 1))
    assert draws_of_epochs(first, [0]) != draws_of_epochs(second, [0])
