"""The Streaming paper's optimizer: its numbers, its rates by hand, and what it cannot be combined with."""

from pathlib import Path

import pytest
import torch

from nnunet_ext.trainers.names import TrainerNameError, trainer_class


def rates(trainer):
    """The rate in the optimizer in every epoch."""
    found = []
    for epoch in range(trainer.num_epochs):
        trainer.lr_scheduler.step(epoch)
        found.append(trainer.optimizer.param_groups[0]["lr"])
    return found


def test_the_optimizer_has_the_released_codes_numbers(make_trainer):
    optimizer = make_trainer("nnUNetTrainerRMSprop").optimizer
    assert type(optimizer) is torch.optim.RMSprop
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (1e-4, 1e-7, 0.9)


def test_the_optimizer_has_all_parameters_of_the_network(make_trainer):
    trainer = make_trainer("nnUNetTrainerRMSprop")
    found = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert found == {id(parameter) for parameter in trainer.network.parameters()}


def test_rates_of_a_training_of_500_epochs(make_trainer):
    # Warm-up 1e-4 (t + 1) / 10. From epoch 10 on with f = 1e-4: 1e-4 (f + (1 - f) (1 + cos(pi (t - 10) / 490)) / 2),
    # at t = 255, half way, 1e-4 (1e-4 + 0.9999 / 2) = 5.0005e-5;
    # at t = 499 one epoch is left: 1 + cos(pi - x) = x^2 / 2, x = pi / 490, so 1e-4 (1e-4 + 1.0275e-5) = 1.1028e-8
    found = rates(make_trainer("nnUNetTrainerRMSprop_500epochs"))
    assert found[:11] == pytest.approx([1e-5 * step for step in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]])
    assert found[255] == pytest.approx(5.0005e-5)
    assert found[499] == pytest.approx(1.1028e-8, rel=1e-3)


def test_rates_fall_after_the_warm_up(make_trainer):
    found = rates(make_trainer("nnUNetTrainerRMSprop_40epochs"))
    assert found == [*sorted(found[:11]), *sorted(found[11:], reverse=True)]


@pytest.mark.parametrize(("epochs", "warm_up"), [(1, 0), (2, 1), (4, 2), (19, 9), (20, 10), (21, 10)])
def test_the_warm_up_takes_ten_epochs_but_no_more_than_half_the_training(make_trainer, epochs, warm_up):
    # the first epoch with the full rate is the last one of the warm-up, or the first one if there is none
    found = rates(make_trainer(f"nnUNetTrainerRMSprop_{epochs}epochs"))
    assert found.index(max(found)) == max(0, warm_up - 1)
    assert max(found) == pytest.approx(1e-4)


def test_rates_of_a_very_short_training(make_trainer):
    # Four epochs, two of them warm-up: 1/2, 1, then the cosine at 0 and at pi / 2: 1 and 0.50005
    found = rates(make_trainer("nnUNetTrainerRMSprop_4epochs"))
    assert found == pytest.approx([0.5e-4, 1e-4, 1e-4, 0.50005e-4])


def test_the_numbers_can_be_set(make_trainer):
    trainer = make_trainer(
        "nnUNetTrainerRMSprop_8epochs", initial_lr=0.01, warm_up_epochs=0, final_lr_factor=0.0, momentum=0.5
    )
    assert trainer.optimizer.param_groups[0]["momentum"] == 0.5
    found = rates(trainer)
    assert found[0] == pytest.approx(0.01)
    assert found[4] == pytest.approx(0.005)


def test_a_resumed_training_goes_on_as_an_uninterrupted_one(make_trainer, run_epochs):
    whole = make_trainer("nnUNetTrainerRMSprop_member1_4epochs")
    run_epochs(whole, 3)
    interrupted = make_trainer("nnUNetTrainerRMSprop_member1_4epochs", save_every=1)
    run_epochs(interrupted, 2)
    resumed = make_trainer("nnUNetTrainerRMSprop_member1_4epochs", initialize=False)
    resumed.load_checkpoint(str(Path(interrupted.output_folder) / "checkpoint_latest.pth"))
    resumed.inference_allowed_mirroring_axes = (0, 1)
    run_epochs(resumed, 3)
    for parameter, expected in zip(resumed.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(parameter, expected)


def test_it_trains_an_averaged_and_distilled_network_as_well(make_trainer, run_epochs):
    trainer = make_trainer("nnUNetTrainerRMSprop_DSD_EMA_2epochs")
    assert type(trainer.optimizer) is torch.optim.RMSprop
    run_epochs(trainer, 2)


@pytest.mark.parametrize(
    ("other", "claim"),
    [
        ("Cyclical", "the learning-rate schedule"),
        ("SWA", "the learning-rate schedule"),
        ("Adam1en3", "the optimizer"),
    ],
)
def test_another_schedule_or_optimizer_is_refused(other, claim):
    with pytest.raises(TrainerNameError, match=f"both set {claim}"):
        trainer_class(f"nnUNetTrainerRMSprop_{other}")
