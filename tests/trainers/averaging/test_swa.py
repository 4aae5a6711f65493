"""Stochastic weight averaging: its learning rates by hand, its mean against the weights of the epochs."""

from pathlib import Path

import pytest
import torch


def parameters(network):
    """A copy of the parameters by name, each once."""
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def checkpoint(trainer, name):
    return torch.load(Path(trainer.output_folder) / name, weights_only=True)


def test_swa_rate_is_nnunets_until_the_last_quarter_and_constant_there(make_trainer):
    # T = 8, so averaging starts at epoch 6: 0.01 * (1 - min(e, 6)/8)^0.9
    trainer = make_trainer("nnUNetTrainerSWA_8epochs")
    rates = []
    for epoch in range(8):
        trainer.lr_scheduler.step(epoch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates[:6] == pytest.approx([0.01 * (1 - epoch / 8) ** 0.9 for epoch in range(6)])
    assert rates[6:] == pytest.approx([0.01 * 0.25**0.9] * 2)


def test_swa_averages_exactly_the_last_quarter(make_trainer, run_epochs):
    trainer = make_trainer("nnUNetTrainerSWA_8epochs")
    at_end_of = []
    for epoch in range(8):
        run_epochs(trainer, epoch + 1)
        at_end_of.append(parameters(trainer.network))
    trainer.on_train_end()
    saved = checkpoint(trainer, "checkpoint_swa.pth")
    for name, last in at_end_of[7].items():
        mean = (at_end_of[6][name].double() + last.double()) / 2
        torch.testing.assert_close(saved["network_weights"][name].double(), mean, rtol=1e-6, atol=1e-7)
    assert not torch.equal(
        saved["network_weights"]["encoder.stages.0.0.convs.0.conv.weight"],
        at_end_of[7]["encoder.stages.0.0.convs.0.conv.weight"],
    )


def test_swa_continues_its_average_after_a_resume(make_trainer, run_epochs):
    uninterrupted = make_trainer("nnUNetTrainerSWA_member0_8epochs")
    run_epochs(uninterrupted, 8)
    uninterrupted.on_train_end()
    expected = checkpoint(uninterrupted, "checkpoint_swa.pth")["network_weights"]

    stopped = make_trainer("nnUNetTrainerSWA_member0_8epochs", save_every=7)
    run_epochs(stopped, 7)  # one of the two epochs is in the average
    resumed = make_trainer("nnUNetTrainerSWA_member0_8epochs", initialize=False)
    resumed.load_checkpoint(str(Path(stopped.output_folder) / "checkpoint_latest.pth"))
    run_epochs(resumed, 8)
    resumed.on_train_end()
    for name, tensor in checkpoint(resumed, "checkpoint_swa.pth")["network_weights"].items():
        torch.testing.assert_close(tensor, expected[name])


def test_swa_of_one_epoch_is_that_epoch(make_trainer, run_epochs):
    trainer = make_trainer("nnUNetTrainerSWA_1epochs")
    run_epochs(trainer, 1)
    trainer.on_train_end()
    saved = checkpoint(trainer, "checkpoint_swa.pth")["network_weights"]
    for name, parameter in parameters(trainer.network).items():
        assert torch.equal(saved[name], parameter)
