"""Averages of weights, against loops written out and statistics by their definition."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_ext.trainers.averaging.averaged_weights import mean_weights, refresh_batch_norm, shared_names


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


# --- the file ---


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
