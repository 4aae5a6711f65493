"""Averages of weights, against loops written out and statistics by their definition."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_ext.trainers.averaging.weight_averaging import mean_weights, refresh_batch_norm, shared_names


def parameters(network):
    """A copy of the parameters by name, each once."""
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def checkpoint(trainer, name):
    return torch.load(Path(trainer.output_folder) / name, weights_only=True)


# --- means ---


def test_mean_of_two_by_hand():
    # (1 + 2)/2 = 1.5 and (-4 + 5)/2 = 0.5; the counter is that of the last member
    first = {"w": torch.tensor([1.0, -4.0]), "num_batches_tracked": torch.tensor(7)}
    last = {"w": torch.tensor([2.0, 5.0]), "num_batches_tracked": torch.tensor(9)}
    mean = mean_weights([first, last])
    assert mean["w"].tolist() == [1.5, 0.5]
    assert mean["num_batches_tracked"].item() == 9
    assert mean["num_batches_tracked"].dtype == torch.int64
    assert first["w"].tolist() == [1, -4]  # not changed


def test_mean_of_one_is_that_member():
    weights = {"w": torch.tensor([0.1, 0.2])}
    assert torch.equal(mean_weights([weights])["w"], weights["w"])


def test_mean_of_half_precision_samples_is_not_rounded_to_half_precision():
    # 1 and 1 + 2^-10 are neighbours in fp16; their mean lies between them
    members = [{"w": torch.tensor([1.0]).half()}, {"w": torch.tensor([1 + 2**-10]).half()}]
    mean = mean_weights(members)["w"]
    assert mean.dtype == torch.float32
    assert mean.item() == 1 + 2**-11


def test_a_small_member_is_not_lost_beside_a_large_one():
    # fp32 has 24 bits: 2^24 + 1 + 1 summed in fp32 stays 2^24
    mean = mean_weights([{"w": torch.tensor([value])} for value in (2.0**24, 1.0, 1.0, 0.0)])
    assert mean["w"].item() == (2**24 + 2) / 4


def test_mean_takes_an_iterator_and_keeps_names_and_their_order():
    members = ({"b": torch.ones(1), "a": torch.full((2, 3), float(k))} for k in range(3))
    mean = mean_weights(members)
    assert list(mean) == ["b", "a"]
    assert mean["a"].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_mean_keeps_shared_tensors_shared():
    def member(value):
        tensor = torch.full((2,), value)
        return {"conv.weight": tensor, "all_modules.0.weight": tensor, "other": torch.full((2,), value)}

    mean = mean_weights([member(1.0), member(2.0)])
    assert mean["conv.weight"].data_ptr() == mean["all_modules.0.weight"].data_ptr()
    assert mean["other"].data_ptr() != mean["conv.weight"].data_ptr()
    assert mean["all_modules.0.weight"].tolist() == [1.5, 1.5]


def test_shared_names_by_hand():
    tensor = torch.zeros(2, 3)
    weights = {"a": tensor, "b": torch.zeros(2, 3), "a_again": tensor, "first_row": tensor[0]}
    # the first row begins at the same address but is another tensor
    assert shared_names(weights) == {"a": "a", "b": "b", "a_again": "a", "first_row": "first_row"}


def test_mean_leaves_double_precision_members_as_they_are():
    members = [{"w": torch.tensor([1.0], dtype=torch.float64)}, {"w": torch.tensor([2.0], dtype=torch.float64)}]
    mean = mean_weights(members)
    assert mean["w"].item() == 1.5
    assert [member["w"].item() for member in members] == [1, 2]


def test_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one member; found none"):
        mean_weights([])


# --- BatchNorm ---


def test_running_statistics_are_the_mean_over_the_batches_by_hand():
    # Batch 1: 0, 2, 4, 6: mean 3, variance (9 + 1 + 1 + 9)/3 = 20/3 (unbiased, as BatchNorm keeps it).
    # Batch 2: 10, 10, 10, 14: mean 11, variance (1 + 1 + 1 + 9)/3 = 4.
    # Mean over both: 7 and (20/3 + 4)/2 = 16/3, whatever the momentum.
    batches = [torch.tensor([0.0, 2, 4, 6]).reshape(1, 1, 2, 2), torch.tensor([10.0, 10, 10, 14]).reshape(1, 1, 2, 2)]
    network = nn.Sequential(nn.BatchNorm2d(1))
    weights = {**deepcopy(network.state_dict()), "0.running_mean": torch.tensor([99.0])}
    refreshed = refresh_batch_norm(network, weights, batches, device=torch.device("cpu"))
    assert refreshed["0.running_mean"].item() == pytest.approx(7)
    assert refreshed["0.running_var"].item() == pytest.approx(16 / 3)
    assert refreshed["0.num_batches_tracked"].item() == 2


def test_the_network_that_gives_the_architecture_stays_as_it_is():
    network = nn.Sequential(nn.BatchNorm2d(1)).eval()
    before = deepcopy(network.state_dict())
    refresh_batch_norm(network, before, [torch.randn(2, 1, 4, 4)], device=torch.device("cpu"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not network.training
    assert network[0].momentum == 0.1  # torch's default


@pytest.mark.parametrize(
    "layer", [nn.InstanceNorm2d(1, affine=True), nn.BatchNorm2d(1, track_running_stats=False), nn.Conv2d(1, 1, 1)]
)
def test_without_running_statistics_no_image_is_read(layer):
    network = nn.Sequential(layer)
    batches = iter([torch.zeros(1, 1, 2, 2)])
    weights = network.state_dict()
    assert refresh_batch_norm(network, weights, batches, device=torch.device("cpu")) is weights
    assert len(list(batches)) == 1


# --- SWA ---


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


# --- EMA ---


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


def test_ema_forgets_the_weights_before_the_first_step(make_trainer, random_batch):
    trainer = make_trainer("nnUNetTrainerEMA")
    (after_one_step,) = train(trainer, random_batch, [0])
    np.testing.assert_array_equal(flat(trainer.ema.module), after_one_step)


def test_training_itself_does_not_notice_the_moving_average(make_trainer, random_batch):
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


def test_the_averages_of_two_parts_are_both_kept(make_trainer, run_epochs, tmp_path):
    trainer = make_trainer("nnUNetTrainerSWA_EMA_1epochs")
    run_epochs(trainer, 1)
    trainer.save_checkpoint(str(tmp_path / "both.pth"))
    resumed = make_trainer("nnUNetTrainerSWA_EMA_1epochs", initialize=False)
    resumed.load_checkpoint(str(tmp_path / "both.pth"))
    for average, original in ((resumed.swa, trainer.swa), (resumed.ema, trainer.ema)):
        np.testing.assert_array_equal(flat(average.module), flat(original.module))
        assert average.n_averaged == original.n_averaged == 1


# --- checkpoints ---


def test_stock_nnunet_continues_from_our_checkpoint(make_trainer, run_epochs, tmp_path):
    trainer = make_trainer("nnUNetTrainerEMA_2epochs")
    run_epochs(trainer, 1)
    trainer.save_checkpoint(str(tmp_path / "ours.pth"))
    stock = make_trainer("nnUNetTrainer_NoMirroring", initialize=False)  # stock classes only
    stock.load_checkpoint(str(tmp_path / "ours.pth"))
    np.testing.assert_array_equal(flat(stock.network), flat(trainer.network))


def test_our_trainer_loads_a_stock_checkpoint(make_trainer, run_epochs, tmp_path):
    stock = make_trainer("nnUNetTrainer_NoMirroring")
    run_epochs(stock, 1)
    stock.save_checkpoint(str(tmp_path / "stock.pth"))
    trainer = make_trainer("nnUNetTrainerSWA_EMA_8epochs", initialize=False)
    trainer.load_checkpoint(str(tmp_path / "stock.pth"))
    np.testing.assert_array_equal(flat(trainer.network), flat(stock.network))


@pytest.mark.parametrize("call_that_fails", [1, 2])  # nnU-Net's own save, then ours with the average
def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(
    make_trainer, run_epochs, tmp_path, monkeypatch, call_that_fails
):
    trainer = make_trainer("nnUNetTrainerEMA_2epochs")
    run_epochs(trainer, 1)
    path = tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(path))
    before = path.read_bytes()
    real_save, calls = torch.save, []

    def full_disk(content, file):
        calls.append(file)
        if len(calls) == call_that_fails:
            raise OSError("No space left on device")
        real_save(content, file)

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        trainer.save_checkpoint(str(path))
    assert path.read_bytes() == before
    assert list(tmp_path.glob(".partial*")) == []


@pytest.mark.parametrize(
    ("name", "written"),
    [("nnUNetTrainerSWA_1epochs", "checkpoint_swa.pth"), ("nnUNetTrainerEMA_1epochs", "checkpoint_ema.pth")],
)
def test_the_average_is_a_plain_checkpoint_for_prediction(make_trainer, run_epochs, checkpoint_files, name, written):
    trainer = make_trainer(name)
    run_epochs(trainer, 1)
    trainer.on_train_end()
    assert checkpoint_files(trainer) == sorted(["checkpoint_best.pth", "checkpoint_final.pth", written])
    saved = checkpoint(trainer, written)
    assert set(saved) == {"network_weights", "init_args", "trainer_name", "inference_allowed_mirroring_axes"}
    assert saved["trainer_name"] == name
    assert saved["inference_allowed_mirroring_axes"] == (0, 1)
    make_trainer("nnUNetTrainer_1epochs").network.load_state_dict(saved["network_weights"])  # strict


@pytest.mark.parametrize("name", ["nnUNetTrainerSWA_1epochs", "nnUNetTrainerEMA_1epochs"])
def test_disabled_checkpointing_writes_no_average(make_trainer, run_epochs, checkpoint_files, name):
    trainer = make_trainer(name, disable_checkpointing=True)
    run_epochs(trainer, 1)
    trainer.on_train_end()
    assert checkpoint_files(trainer) == []


def test_the_average_of_a_batch_norm_network_has_statistics_of_the_training_images(
    make_trainer, run_epochs, random_batch
):
    trainer = make_trainer("nnUNetTrainerEMA_BN_3iters_1epochs")
    run_epochs(trainer, 1)
    trainer.dataloader_train = iter([random_batch(trainer, seed) for seed in range(50, 55)])
    trainer.on_train_end()
    assert len(list(trainer.dataloader_train)) == 2  # one epoch is three batches
    weights = checkpoint(trainer, "checkpoint_ema.pth")["network_weights"]
    first = "encoder.stages.0.0.convs.0."
    features = [
        nn.functional.conv2d(
            random_batch(trainer, seed)["data"],
            weights[first + "conv.weight"],
            weights[first + "conv.bias"],
            padding=1,
        ).numpy()
        for seed in range(50, 53)
    ]  # (B, channels, 32, 32) each
    mean = np.mean([feature.mean((0, 2, 3)) for feature in features], axis=0)
    variance = np.mean([feature.var((0, 2, 3), ddof=1) for feature in features], axis=0)
    np.testing.assert_allclose(weights[first + "norm.running_mean"].numpy(), mean, atol=1e-6)
    np.testing.assert_allclose(weights[first + "norm.running_var"].numpy(), variance, rtol=1e-4)
