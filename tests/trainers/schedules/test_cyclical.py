"""Cyclical checkpoint sampling: rates and sampled epochs by hand, files by what a predictor makes of them."""

import hashlib
import json
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from torch import nn

from nnunet_ext import discovery
from nnunet_ext.files.checkpoints import load_checkpoint
from nnunet_ext.trainers.networks.posterior import posterior_trainer_name

# T = 30, M = 3: T_c = 10 and the plateau begins at 0.8 * 10 = 8. Rates of one cycle with H = T = 30:
#   t_c = 0: 0.1, then 0.01 * (1 - min(t_c, 8)/30)^0.9. Two of them are in the table for T = 1200:
#   1 - 5/30 = 1 - 200/1200, which is 0.008487, and 1 - 8/30 = 1 - 320/1200, which is 0.007564.
EPOCHS = 30
RATES = [0.1, *(0.01 * (1 - t / 30) ** 0.9 for t in (1, 2, 3, 4, 5, 6, 7, 8, 8))] * 3
SAMPLED = [8, 9, 18, 19, 28, 29]
FILES = [
    *("checkpoint_c0_e0008.pth", "checkpoint_c0_e0009.pth", "checkpoint_c1_e0018.pth"),
    *("checkpoint_c1_e0019.pth", "checkpoint_c2_e0028.pth", "checkpoint_c2_e0029.pth"),
]


def load(trainer, name):
    return load_checkpoint(Path(trainer.output_folder) / name)


def manifest(trainer):
    return json.loads((Path(trainer.output_folder) / "samples.json").read_text())["samples"]


def sha256(trainer, name):
    return hashlib.sha256((Path(trainer.output_folder) / name).read_bytes()).hexdigest()


def rates_set(trainer, epochs):
    rates = []
    for epoch in epochs:
        trainer.lr_scheduler.step(epoch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    return rates


def plain_network(trainer):
    """A new network of the stock trainer, as prediction builds it."""
    return nnUNetTrainer.build_network_architecture(
        trainer.plans_manager,
        trainer.configuration_manager,
        trainer.num_input_channels,
        trainer.label_manager.num_segmentation_heads,
        enable_deep_supervision=False,
    )


def outputs(network, images):
    with torch.no_grad():
        return network.eval()(images)


def softmax(logits):
    logits = logits.double().numpy()
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.double().numpy()))


def tensor_bytes(weights):
    """Bytes of the tensors, those that share memory counted once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in weights.values()}
    return sum(storages.values())


@pytest.fixture
def nnunet_finds_us(monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", discovery.path())


@pytest.fixture
def images():
    return torch.randn((2, 1, 32, 32), generator=torch.Generator().manual_seed(99))


@pytest.fixture(scope="module")
def training(make_shared_trainer, run_epochs):
    """A whole training of 30 epochs, its rates, and the weights at the end of each epoch."""
    trainer = make_shared_trainer("nnUNetTrainerCyclical_Restart10_30epochs_member0")
    weights = []
    for epoch in range(EPOCHS):
        run_epochs(trainer, epoch + 1)
        weights.append(deepcopy(trainer.network.state_dict()))
    trainer.on_train_end()
    return SimpleNamespace(trainer=trainer, weights=weights, rates=trainer.logger.get_value("lrs", None))


# --- learning rate ---


def test_each_epoch_has_the_rate_of_the_paper(training):
    assert training.rates == pytest.approx(RATES)
    assert training.rates[5] == pytest.approx(0.008487, abs=1e-6)
    assert training.rates[29] == pytest.approx(0.007564, abs=1e-6)


def test_the_default_training_has_1200_epochs_in_three_cycles(make_trainer):
    # The table for T = 1200, T_c = 400: t_c = 1, 100, 200 and the plateau from 320 on.
    trainer = make_trainer("nnUNetTrainerCyclical")
    assert (trainer.num_epochs, trainer.initial_lr) == (1200, 0.01)
    for start in (0, 400, 800):
        rates = rates_set(trainer, [start + t for t in (0, 1, 100, 200, 320, 399)])
        assert rates == pytest.approx([0.1, 0.009992, 0.009247, 0.008487, 0.007564, 0.007564], abs=1e-6)


def test_the_other_horizon_decays_within_the_cycle(make_trainer):
    trainer = make_trainer("nnUNetTrainerCyclical_DecayPerCycle")
    rates = rates_set(trainer, [0, 1, 100, 200, 320, 399])
    assert rates == pytest.approx([0.1, 0.009977, 0.007719, 0.005359, 0.002349, 0.002349], abs=1e-6)


@pytest.mark.parametrize(("name", "first_rate"), [("Cyclical_300epochs", 0.1), ("Cyclical_299epochs", 0.01)])
def test_only_cycles_of_100_epochs_begin_with_the_papers_rate(make_trainer, name, first_rate):
    trainer = make_trainer(f"nnUNetTrainer{name}")
    assert rates_set(trainer, [0, trainer.cycle_plan.epochs_in_cycle]) == pytest.approx([first_rate] * 2)


def test_the_name_gives_the_rate_of_the_restarts(make_trainer):
    trainer = make_trainer("nnUNetTrainerCyclical_Restart2_30epochs")
    assert rates_set(trainer, [0, 10, 20]) == pytest.approx([0.02, 0.02, 0.02])


def test_the_first_restart_can_be_skipped(make_trainer):
    trainer = make_trainer("nnUNetTrainerCyclical_Restart10_30epochs", skip_first_restart=True)
    assert rates_set(trainer, [0, 10, 20]) == pytest.approx([0.01, 0.1, 0.1])


def test_the_number_in_the_name_is_the_number_of_cycles(make_trainer):
    # 500 epochs in 5 cycles: restarts every 100 epochs; plateau at 80: 0.01 * (1 - 80/500)^0.9
    trainer = make_trainer("nnUNetTrainerCyclical5_500epochs")
    rates = rates_set(trainer, range(500))
    assert [epoch for epoch, rate in enumerate(rates) if rate == pytest.approx(0.1)] == [0, 100, 200, 300, 400]
    assert rates[480:] == pytest.approx([0.01 * 0.84**0.9] * 20)


def test_momentum_is_not_reset_at_a_restart(make_trainer, run_epochs):
    trainer = make_trainer("nnUNetTrainerCyclical_6epochs")
    run_epochs(trainer, 2)  # the next epoch opens the second cycle
    before = trainer.optimizer.state_dict()["state"][0]["momentum_buffer"].clone()
    trainer.on_train_epoch_start()
    assert torch.equal(trainer.optimizer.state_dict()["state"][0]["momentum_buffer"], before)


def sampled_epochs(trainer, monkeypatch):
    """Runs through all epochs of a long training with saving replaced by taking notes."""
    sampled = []
    monkeypatch.setattr(trainer, "save_sample", lambda: sampled.append(trainer.current_epoch))
    monkeypatch.setattr(nnUNetTrainer, "on_epoch_end", lambda self: None)
    for epoch in range(trainer.num_epochs):
        trainer.current_epoch = epoch
        trainer.on_epoch_end()
    return sampled


def test_the_default_training_samples_80_epochs_of_each_cycle(make_trainer, monkeypatch):
    trainer = make_trainer("nnUNetTrainerCyclical")
    assert sampled_epochs(trainer, monkeypatch) == [*range(320, 400), *range(720, 800), *range(1120, 1200)]


def test_epochs_that_are_not_a_multiple_of_the_cycles_prolong_the_last_plateau(make_trainer, monkeypatch):
    # 250 = 3 * 83 + 1: cycles begin at 0, 83 and 166; plateaus at 0.8 * 83 = 66.4, so index 66 to 82 of each cycle,
    # and epoch 249 belongs to the last one. The horizon is that of 249 epochs.
    trainer = make_trainer("nnUNetTrainerCyclical_Restart10_250epochs")
    rates = rates_set(trainer, range(250))
    assert [epoch for epoch, rate in enumerate(rates) if rate == pytest.approx(0.1)] == [0, 83, 166]
    assert rates[1] == pytest.approx(0.01 * (1 - 1 / 249) ** 0.9)
    assert rates[232:] == pytest.approx([0.01 * (1 - 66 / 249) ** 0.9] * 18)
    assert sampled_epochs(trainer, monkeypatch) == [*range(66, 83), *range(149, 166), *range(232, 250)]


def test_fewer_epochs_than_cycles_are_as_many_cycles(make_trainer, run_epochs, checkpoint_files):
    trainer = make_trainer("nnUNetTrainerCyclical_Restart10_2epochs")
    run_epochs(trainer, 2)
    trainer.on_train_end()
    assert trainer.logger.get_value("lrs", None) == pytest.approx([0.1, 0.1])
    assert [entry["file"] for entry in manifest(trainer)] == ["checkpoint_c0_e0000.pth", "checkpoint_c1_e0001.pth"]
    assert load(trainer, "checkpoint_posterior.pth")["trainer_name"] == "nnUNetTrainer_posterior2"
    assert "checkpoint_swa.pth" in checkpoint_files(trainer)


# --- samples ---


def test_files_of_a_whole_training(training, checkpoint_files):
    others = ["checkpoint_best.pth", "checkpoint_final.pth", "checkpoint_posterior.pth", "checkpoint_swa.pth"]
    assert checkpoint_files(training.trainer) == sorted([*FILES, *others, "samples.json"])


@pytest.mark.parametrize(("name", "epoch"), list(zip(FILES, SAMPLED, strict=True)))
def test_a_sample_is_the_weights_at_the_end_of_its_epoch(training, name, epoch):
    weights = load(training.trainer, name)["network_weights"]
    assert list(weights) == list(training.weights[epoch])
    assert all(torch.equal(weights[key], tensor) for key, tensor in training.weights[epoch].items())


def test_a_sample_holds_what_prediction_needs_and_no_optimizer(training):
    sample = load(training.trainer, FILES[0])
    assert set(sample) == {"network_weights", "init_args", "trainer_name", "inference_allowed_mirroring_axes"}
    assert sample["trainer_name"] == "nnUNetTrainerCyclical_Restart10_30epochs_member0"
    assert sample["init_args"]["configuration"] == "2d"
    assert sample["inference_allowed_mirroring_axes"] == (0, 1)
    plain_network(training.trainer).load_state_dict(sample["network_weights"])  # strict


def test_the_manifest_describes_each_sample(training):
    entries = manifest(training.trainer)
    assert [entry["file"] for entry in entries] == FILES
    assert [entry["epoch"] for entry in entries] == SAMPLED
    assert [entry["cycle"] for entry in entries] == [0, 0, 1, 1, 2, 2]
    assert [entry["epoch_in_cycle"] for entry in entries] == [8, 9] * 3
    assert [entry["learning_rate"] for entry in entries] == pytest.approx([0.0075643] * 6, abs=1e-7)
    # the Dice that the fixture logged: 0.9 - 0.01 * epoch
    assert [entry["pseudo_dice"] for entry in entries] == pytest.approx([0.82, 0.81, 0.72, 0.71, 0.62, 0.61])
    for entry in entries:
        assert entry["sha256"] == sha256(training.trainer, entry["file"])


def test_a_dice_that_is_not_a_number_is_null_in_the_manifest(make_trainer):
    trainer = make_trainer("nnUNetTrainerCyclical_3epochs")
    trainer.logger.log("mean_fg_dice", float("nan"), 0)  # no foreground in the validation batches
    trainer.save_sample()
    assert manifest(trainer)[0]["pseudo_dice"] is None


def test_the_sample_is_there_before_the_checkpoint_to_resume_from(make_trainer, run_epochs, monkeypatch):
    # A run killed between the two makes the epoch again; the other way round its sample would be lost.
    trainer = make_trainer("nnUNetTrainerCyclical_3epochs", save_every=1)

    def killed(filename):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        run_epochs(trainer, 1)
    assert [entry["file"] for entry in manifest(trainer)] == ["checkpoint_c0_e0000.pth"]


def test_half_precision_samples_are_half_as_large(make_trainer):
    trainer = make_trainer("nnUNetTrainerCyclical_3epochs", features=(32, 64, 64))
    trainer.logger.log("mean_fg_dice", 0.5, 0)
    sizes = {}
    for dtype in ("float32", "float16"):
        trainer.sample_dtype = dtype
        trainer.save_sample()
        sample = Path(trainer.output_folder) / "checkpoint_c0_e0000.pth"
        sizes[dtype] = sample.stat().st_size, tensor_bytes(load(trainer, sample.name)["network_weights"])
    assert sizes["float16"][1] * 2 == sizes["float32"][1]
    assert sizes["float16"][0] < 0.6 * sizes["float32"][0]  # the rest is names and settings
    for name, tensor in load(trainer, "checkpoint_c0_e0000.pth")["network_weights"].items():
        assert torch.equal(tensor, trainer.network.state_dict()[name].half())
    assert manifest(trainer)[0]["sha256"] == sha256(trainer, "checkpoint_c0_e0000.pth")


def test_disabled_checkpointing_writes_nothing(make_trainer, run_epochs, checkpoint_files):
    trainer = make_trainer("nnUNetTrainerCyclical_3epochs", disable_checkpointing=True)
    run_epochs(trainer, 3)
    trainer.on_train_end()
    assert checkpoint_files(trainer) == []


def test_only_rank_0_writes_samples(make_trainer, run_epochs, checkpoint_files):
    trainer = make_trainer("nnUNetTrainerCyclical_3epochs", local_rank=1)
    run_epochs(trainer, 3)
    assert checkpoint_files(trainer) == []


# --- start and resume ---


def interrupted(make_trainer, run_epochs, *, checkpoint_epoch, stop, **options):
    """A training that wrote `checkpoint_latest.pth` after some epochs and was killed later; resumed, not yet run."""
    name = "nnUNetTrainerCyclical_Restart10_30epochs_member0"
    killed = make_trainer(name, save_every=checkpoint_epoch)
    run_epochs(killed, checkpoint_epoch)
    killed.save_every = 1000
    run_epochs(killed, stop, **options)
    resumed = make_trainer(name, initialize=False)
    resumed.load_checkpoint(str(Path(killed.output_folder) / "checkpoint_latest.pth"))
    return resumed


def test_a_resumed_training_equals_an_uninterrupted_one(make_trainer, run_epochs, training):
    trainer = interrupted(make_trainer, run_epochs, checkpoint_epoch=13, stop=16)
    assert trainer.current_epoch == 13
    run_epochs(trainer, EPOCHS)
    trainer.on_train_end()
    assert trainer.logger.get_value("lrs", None) == pytest.approx(RATES)
    entries, others = manifest(trainer), manifest(training.trainer)
    assert [entry["file"] for entry in entries] == FILES
    for entry, other in zip(entries, others, strict=True):
        assert {**entry, "sha256": ""} == pytest.approx({**other, "sha256": ""})
        assert entry["sha256"] == sha256(trainer, entry["file"])
    for name in [*FILES, "checkpoint_swa.pth", "checkpoint_posterior.pth"]:
        weights = load(training.trainer, name)["network_weights"]
        for key, tensor in load(trainer, name)["network_weights"].items():
            torch.testing.assert_close(tensor, weights[key], rtol=1e-3, atol=1e-4)


def test_samples_made_again_replace_those_of_the_killed_run(make_trainer, run_epochs):
    # Killed after epoch 9 with a checkpoint of epoch 6: epochs 8 and 9 are made again, here from other batches.
    trainer = interrupted(make_trainer, run_epochs, checkpoint_epoch=7, stop=10, seed=1)
    before = {entry["file"]: entry["sha256"] for entry in manifest(trainer)}
    assert list(before) == FILES[:2]
    run_epochs(trainer, 10, seed=2)
    after = {entry["file"]: entry["sha256"] for entry in manifest(trainer)}
    assert list(after) == FILES[:2]
    for name in FILES[:2]:
        assert after[name] == sha256(trainer, name)
        assert after[name] != before[name]


@pytest.fixture
def started(make_trainer, monkeypatch):
    """`started(epoch)`: a training whose folder holds an older one's files, after `on_train_start` at an epoch."""
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: None)  # it needs a dataset

    def start(epoch, **attributes):
        trainer = make_trainer("nnUNetTrainerCyclical_Restart10_30epochs", **attributes)
        for name in ("checkpoint_c0_e0008.pth", "checkpoint_c4_e0480.pth", "checkpoint_final.pth"):
            (Path(trainer.output_folder) / name).touch()
        (Path(trainer.output_folder) / "samples.json").write_text('{"samples": []}')
        trainer.current_epoch = epoch
        trainer.on_train_start()
        return trainer

    return start


def test_a_fresh_start_removes_the_samples_of_an_earlier_training(started, checkpoint_files):
    assert checkpoint_files(started(0)) == ["checkpoint_final.pth"]


@pytest.mark.parametrize(
    ("epoch", "attributes"), [(1, {}), (0, {"disable_checkpointing": True}), (0, {"local_rank": 1})]
)
def test_samples_stay_when_resumed_and_when_nothing_may_be_written(started, checkpoint_files, epoch, attributes):
    assert checkpoint_files(started(epoch, **attributes)) == [
        *("checkpoint_c0_e0008.pth", "checkpoint_c4_e0480.pth", "checkpoint_final.pth", "samples.json"),
    ]


def test_the_log_describes_the_cycles(started):
    log = Path(started(0).log_file).read_text()
    assert "3 cycles of 10 epochs (30 in all), restart rate 0.1, decay horizon total, 6 samples" in log


# --- the posterior ---


def mirrored_outputs(network, images):
    """Mean of the outputs over the four mirror images of a 2D batch, each mirrored back."""
    axes_of_flips = ((), (2,), (3,), (2, 3))
    return torch.stack([outputs(network, images.flip(axes)).flip(axes) for axes in axes_of_flips]).mean(0)


def test_the_posterior_is_the_mean_of_the_samples_probabilities(training, images, nnunet_finds_us):
    trainer = training.trainer
    posterior = load(trainer, "checkpoint_posterior.pth")
    assert posterior["trainer_name"] == "nnUNetTrainer_posterior6"
    network = recursive_find_trainer_class_by_name(posterior["trainer_name"]).build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 1, 3, enable_deep_supervision=False
    )
    network.load_state_dict(posterior["network_weights"])  # strict
    members = []
    for name in FILES:
        member = plain_network(trainer)
        member.load_state_dict(load(trainer, name)["network_weights"])
        members.append(softmax(mirrored_outputs(member, images)))
    assert np.abs(members[0] - members[-1]).max() > 0.01  # the members differ
    np.testing.assert_allclose(softmax(outputs(network, images)), np.mean(members, axis=0), atol=1e-5)


@pytest.mark.parametrize("name", ["checkpoint_posterior.pth", "checkpoint_swa.pth", FILES[-1]])
def test_the_stock_predictor_reads_our_checkpoints(training, nnunet_finds_us, name):
    trainer = training.trainer
    model_folder = Path(trainer.output_folder_base)
    (model_folder / "plans.json").write_text(json.dumps(trainer.plans_manager.plans))
    (model_folder / "dataset.json").write_text(json.dumps(trainer.dataset_json))
    predictor = nnUNetPredictor(device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(str(model_folder), use_folds=(0,), checkpoint_name=name)
    # the posterior's network mirrors its input itself
    assert predictor.allowed_mirroring_axes == (None if "posterior" in name else (0, 1))
    assert predictor.trainer_name == load(trainer, name)["trainer_name"]


def test_the_posterior_of_a_dataset_with_regions(make_trainer, run_epochs, images, nnunet_finds_us):
    trainer = make_trainer("nnUNetTrainerCyclical_3epochs", regions=True)
    run_epochs(trainer, 3)
    trainer.on_train_end()
    posterior = load(trainer, "checkpoint_posterior.pth")
    network = recursive_find_trainer_class_by_name(posterior["trainer_name"]).build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 1, 2, enable_deep_supervision=False
    )
    network.load_state_dict(posterior["network_weights"])
    members = []
    for entry in manifest(trainer):
        member = plain_network(trainer)
        member.load_state_dict(load(trainer, entry["file"])["network_weights"])
        members.append(sigmoid(mirrored_outputs(member, images)))
    assert len(members) == 3
    np.testing.assert_allclose(sigmoid(outputs(network, images)), np.mean(members, axis=0), atol=1e-5)


def test_the_posterior_of_one_sample_is_that_network(make_trainer, run_epochs, images, nnunet_finds_us):
    trainer = make_trainer("nnUNetTrainerCyclical_1epochs")
    run_epochs(trainer, 1)
    trainer.on_train_end()
    posterior = load(trainer, "checkpoint_posterior.pth")
    network = recursive_find_trainer_class_by_name("nnUNetTrainer_posterior1").build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 1, 3, False
    )
    network.load_state_dict(posterior["network_weights"])
    trainer.set_deep_supervision_enabled(False)
    np.testing.assert_allclose(
        softmax(outputs(network, images)), softmax(mirrored_outputs(trainer.network, images)), atol=1e-5
    )


@pytest.mark.parametrize(
    ("members", "stride", "chosen"),
    [
        (4, 1, [1, 2, 4, 5]),  # two each
        (4, 2, [0, 2, 3, 5]),
        (3, 1, [2, 4, 5]),  # the remainder goes to the later cycle
    ],
)
def test_members_of_the_posterior_are_the_latest_of_each_cycle(make_trainer, run_epochs, members, stride, chosen):
    # 6 epochs in 2 cycles, every epoch sampled
    trainer = make_trainer(
        "nnUNetTrainerCyclical2_6epochs", plateau_start=0.0, posterior_members=members, posterior_stride=stride
    )
    run_epochs(trainer, 6)
    trainer.on_train_end()
    weights = load(trainer, "checkpoint_posterior.pth")["network_weights"]
    key = "decoder.seg_layers.1.weight"
    for index, epoch in enumerate(chosen):
        sample = load(trainer, f"checkpoint_c{epoch // 3}_e{epoch:04d}.pth")["network_weights"]
        assert torch.equal(weights[f"members.{index}.{key}"], sample[key])
    assert f"members.{members}.{key}" not in weights


def test_the_posterior_stores_shared_tensors_once(training):
    posterior = load(training.trainer, "checkpoint_posterior.pth")["network_weights"]
    sample = load(training.trainer, FILES[0])["network_weights"]
    assert (
        tensor_bytes(posterior) == 6 * tensor_bytes(sample) + 4
    )  # and the flags: regions, and mirrored of three axes


def test_half_precision_samples_make_a_posterior_and_a_mean(make_trainer, run_epochs, images, nnunet_finds_us):
    trainer = make_trainer("nnUNetTrainerCyclical_3epochs", sample_dtype="float16")
    run_epochs(trainer, 3)
    trainer.on_train_end()
    swa = load(trainer, "checkpoint_swa.pth")["network_weights"]
    assert {tensor.dtype for tensor in swa.values()} == {torch.float32}
    network = recursive_find_trainer_class_by_name("nnUNetTrainer_posterior3").build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 1, 3, False
    )
    network.load_state_dict(load(trainer, "checkpoint_posterior.pth")["network_weights"])
    assert np.isfinite(softmax(outputs(network, images))).all()


@pytest.mark.parametrize(
    ("parts", "members", "name"),
    [((), 30, "nnUNetTrainer_posterior30"), (("BN",), 2, "nnUNetTrainer_BN_posterior2")],
)
def test_name_of_the_posteriors_trainer(parts, members, name):
    assert posterior_trainer_name(parts, members) == name


@pytest.mark.parametrize("name", ["nnUNetTrainer_posterior30", "nnUNetTrainer_BN_posterior2"])
def test_a_posterior_cannot_be_trained(make_trainer, tmp_path, name):
    trainer = make_trainer(name, initialize=False)
    with pytest.raises(RuntimeError, match=f"{name} only predicts.*-tr nnUNetTrainerCyclical"):
        trainer.on_train_start()
    with pytest.raises(RuntimeError, match="only predicts"):
        trainer.load_checkpoint(str(tmp_path / "checkpoint_latest.pth"))


# --- the mean of the weights ---


def test_swa_is_the_mean_of_the_last_cycles_samples(training):
    swa = load(training.trainer, "checkpoint_swa.pth")
    assert swa["trainer_name"] == "nnUNetTrainerCyclical_Restart10_30epochs_member0"
    assert "optimizer_state" not in swa
    for name, tensor in swa["network_weights"].items():
        mean = (training.weights[28][name].double() + training.weights[29][name].double()) / 2
        torch.testing.assert_close(tensor.double(), mean, rtol=1e-7, atol=1e-9)
    plain_network(training.trainer).load_state_dict(swa["network_weights"])  # strict


def test_swa_of_identical_samples_is_that_sample(make_trainer):
    trainer = make_trainer("nnUNetTrainerCyclical_Restart10_30epochs")
    for epoch in (28, 29):
        trainer.current_epoch = epoch
        trainer.logger.local_logger.my_fantastic_logging["mean_fg_dice"] = [0.5]
        trainer.save_sample()
    trainer.write_average()
    for name, tensor in load(trainer, "checkpoint_swa.pth")["network_weights"].items():
        assert torch.equal(tensor, trainer.network.state_dict()[name])


def test_swa_file_is_not_larger_than_a_sample(training):
    # nnU-Net lists most tensors under two or three names; a mean that forgets it stores each of them anew
    folder = Path(training.trainer.output_folder)
    assert (folder / "checkpoint_swa.pth").stat().st_size <= 1.2 * (folder / FILES[0]).stat().st_size
    swa, sample = (load(training.trainer, name)["network_weights"] for name in ("checkpoint_swa.pth", FILES[0]))
    assert tensor_bytes(swa) == tensor_bytes(sample)


def test_instance_norm_leaves_the_training_batches_untouched(make_trainer, run_epochs, random_batch):
    trainer = make_trainer("nnUNetTrainerCyclical_3epochs_2iters")
    run_epochs(trainer, 3)
    trainer.dataloader_train = iter([random_batch(trainer, seed) for seed in range(4)])
    trainer.on_train_end()
    assert len(list(trainer.dataloader_train)) == 4


def test_batch_norm_statistics_are_those_of_one_epoch_of_training_images(
    make_trainer, run_epochs, random_batch, nnunet_finds_us
):
    trainer = make_trainer("nnUNetTrainerCyclical_BN_6epochs_3iters", plateau_start=0.0)
    run_epochs(trainer, 6)
    own_statistics = deepcopy(trainer.network.state_dict())
    trainer.dataloader_train = iter([random_batch(trainer, seed) for seed in range(50, 55)])
    trainer.on_train_end()
    assert len(list(trainer.dataloader_train)) == 2  # one epoch is three batches

    # Input of the first normalisation: the first convolution with the mean of the last two samples.
    first = "encoder.stages.0.0.convs.0."
    samples = [load(trainer, f"checkpoint_c2_e{epoch:04d}.pth")["network_weights"] for epoch in (4, 5)]
    weight, bias = (
        torch.stack([sample[first + name] for sample in samples]).mean(0) for name in ("conv.weight", "conv.bias")
    )
    features = [
        nn.functional.conv2d(random_batch(trainer, seed)["data"], weight, bias, padding=1).numpy()
        for seed in range(50, 53)
    ]  # (B, channels, 32, 32) each
    mean = np.mean([feature.mean((0, 2, 3)) for feature in features], axis=0)
    variance = np.mean([feature.var((0, 2, 3), ddof=1) for feature in features], axis=0)
    swa = load(trainer, "checkpoint_swa.pth")["network_weights"]
    np.testing.assert_allclose(swa[first + "norm.running_mean"].numpy(), mean, atol=1e-6)
    np.testing.assert_allclose(swa[first + "norm.running_var"].numpy(), variance, rtol=1e-4)
    assert not np.allclose(mean, samples[1][first + "norm.running_mean"].numpy(), atol=1e-3)

    # The trained network itself keeps its own statistics, and the posterior those of each sample.
    final = load(trainer, "checkpoint_final.pth")["network_weights"]
    assert all(torch.equal(final[name], tensor) for name, tensor in own_statistics.items())
    posterior = load(trainer, "checkpoint_posterior.pth")
    assert posterior["trainer_name"] == "nnUNetTrainer_BN_posterior6"
    network = recursive_find_trainer_class_by_name(posterior["trainer_name"]).build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 1, 3, False
    )
    network.load_state_dict(posterior["network_weights"])
    last_member = network.members[5].state_dict()
    assert torch.equal(last_member[first + "norm.running_mean"], samples[1][first + "norm.running_mean"])
