"""The moving average of the weights, against a loop written out."""

import numpy as np
import pytest
import torch


def moving_average(steps, largest_decay):
    """Of the weights after each step: d = min((1 + t)/(10 + t), largest) of the old, 1 - d of the new."""
    average = steps[0].astype(np.float64)
    for t, weights in enumerate(steps[1:], start=1):
        decay = min((1 + t) / (10 + t), largest_decay)
        average = decay * average + (1 - decay) * weights
    return average


def train(trainer, random_batch, steps):
    """The weights after each of the given steps as one vector each."""
    trainer.network.train()
    after = []
    for step in steps:
        trainer.train_step(random_batch(trainer, step))
        after.append(flat(trainer.network))
    return after


def flat(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).numpy()


@pytest.mark.parametrize("largest_decay", [0.999, 0.22])  # 2/11 = 0.18, 3/12 = 0.25: the second is cut at step 3
def test_ema_is_the_moving_average_over_the_steps(make_trainer, random_batch, largest_decay):
    trainer = make_trainer("nnUNetTrainerEMA", ema_decay=largest_decay)
    weights = train(trainer, random_batch, range(5))
    np.testing.assert_allclose(flat(trainer.ema.module), moving_average(weights, largest_decay), rtol=1e-5, atol=1e-7)


def test_ema_does_not_contain_the_weights_before_the_first_step(make_trainer, random_batch):
    trainer = make_trainer("nnUNetTrainerEMA")
    (after_one_step,) = train(trainer, random_batch, [0])
    np.testing.assert_array_equal(flat(trainer.ema.module), after_one_step)


def test_the_moving_average_does_not_change_the_training(make_trainer, random_batch):
    ours = train(make_trainer("nnUNetTrainerEMA_member5"), random_batch, range(3))
    plain = train(make_trainer("nnUNetTrainer_member5"), random_batch, range(3))
    np.testing.assert_allclose(ours[-1], plain[-1], rtol=1e-5, atol=1e-7)


def test_ema_continues_after_a_resume(make_trainer, random_batch, tmp_path):
    trainer = make_trainer("nnUNetTrainerEMA_member5")
    before = train(trainer, random_batch, range(2))
    trainer.save_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    resumed = make_trainer("nnUNetTrainerEMA_member5", initialize=False)
    resumed.load_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    np.testing.assert_array_equal(flat(resumed.ema.module), flat(trainer.ema.module))
    after = train(resumed, random_batch, range(2, 4))
    np.testing.assert_allclose(
        flat(resumed.ema.module), moving_average([*before, *after], 0.999), rtol=1e-5, atol=1e-7
    )
