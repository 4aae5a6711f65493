"""Checkpoints of self-distilling trainers: plain networks, bits that resume, averages and samples."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.architectures.self_distilling import DistillationOutput

FULL = "DSD_FullResolution"
NO_TERMS = {"supervision_weight": 0.0, "encoder_weight": 0.0, "decoder_weight": 0.0}


def plain_network(trainer, *, deep_supervision=True):
    """A new network of the stock trainer, as prediction builds it."""
    return nnUNetTrainer.build_network_architecture(
        trainer.plans_manager,
        trainer.configuration_manager,
        trainer.num_input_channels,
        trainer.label_manager.num_segmentation_heads,
        enable_deep_supervision=deep_supervision,
    )


def all_equal(first, second):
    return list(first) == list(second) and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def load(trainer, name):
    return torch.load(Path(trainer.output_folder) / name, weights_only=False)


def same_output(network, other, image):
    """Both networks' logits are the same bits, at every supervised resolution."""
    with torch.no_grad():
        outputs = zip(network.eval()(image), other.eval()(image), strict=True)
        return all(torch.equal(*pair) for pair in outputs)


def with_one_target(batch):
    """As the loader gives it without deep supervision."""
    return {**batch, "target": batch["target"][0]}


# --- checkpoints ---


def test_a_checkpoint_holds_the_plain_network_and_loads_in_stock(make_trainer, random_batch):
    trainer = make_trainer("nnUNetTrainerDSD")
    trainer.network.train()
    trainer.train_step(random_batch(trainer, 0))
    file = Path(trainer.output_folder) / "checkpoint.pth"
    trainer.save_checkpoint(str(file))
    saved = load(trainer, file.name)
    stock = plain_network(trainer)
    assert list(saved["network_weights"]) == list(make_trainer("nnUNetTrainer").network.state_dict())
    stock.load_state_dict(saved["network_weights"])
    assert same_output(stock, trainer.network, random_batch(trainer, 1)["data"])
    assert list(saved["nnunet_ext"]) == ["distillation_heads"]
    assert all_equal(saved["nnunet_ext"]["distillation_heads"], trainer.network.distillation_heads.state_dict())


@pytest.mark.parametrize("part", ["DSD", FULL, "DSD_BN"])
def test_a_resumed_training_repeats_an_uninterrupted_one_bit_for_bit(make_trainer, run_epochs, part):
    name = f"nnUNetTrainer{part}_member0_9epochs"
    whole = make_trainer(name)
    run_epochs(whole, 4)

    stopped = make_trainer(name, save_every=2)
    run_epochs(stopped, 2)
    resumed = make_trainer(name, initialize=False)
    resumed.load_checkpoint(str(Path(stopped.output_folder) / "checkpoint_latest.pth"))
    heads = stopped.network.distillation_heads.state_dict()
    assert len(heads) > 0
    assert all_equal(resumed.network.distillation_heads.state_dict(), heads)
    run_epochs(resumed, 4)

    assert all_equal(resumed.network.state_dict(), whole.network.state_dict())
    final = (trainer.network.distillation_heads.state_dict() for trainer in (resumed, whole))
    assert all_equal(*final)
    momenta = [
        [state["momentum_buffer"] for state in trainer.optimizer.state_dict()["state"].values()]
        for trainer in (resumed, whole)
    ]
    assert all(torch.equal(*pair) for pair in zip(*momenta, strict=True))


def test_heads_and_their_momenta_are_not_lost_in_a_resume_of_feature_comparison(
    make_trainer, random_batch, initialized, of_four_levels, with_three_targets
):
    trainer = initialized(of_four_levels(make_trainer("nnUNetTrainerDSD_FeatureL2", initialize=False)))
    trainer.train_step(with_three_targets(random_batch(trainer, 0)))
    file = Path(trainer.output_folder) / "checkpoint.pth"
    trainer.save_checkpoint(str(file))
    resumed = of_four_levels(trainer)
    resumed.load_checkpoint(str(file))
    resumed.network.train()
    heads = [each.network.distillation_heads.state_dict() for each in (trainer, resumed)]
    assert any(key.startswith("vectors") for key in heads[0])
    assert all_equal(*heads)
    batch = with_three_targets(random_batch(trainer, 1))
    assert resumed.train_step(batch)["loss"] == trainer.train_step(batch)["loss"]


def test_pretrained_weights_load_as_in_stock(make_trainer):
    stock, trainer = (make_trainer(f"nnUNetTrainer{part}_member{seed}") for part, seed in (("", 1), ("DSD", 2)))
    file = Path(stock.output_folder) / "pretrained.pth"
    stock.save_checkpoint(str(file))
    load_pretrained_weights(trainer.network, str(file))  # nnUNetv2_train -pretrained_weights; leaves seg_layers out
    given, found = stock.network.state_dict(), trainer.network.state_dict()
    loaded = {name for name, tensor in found.items() if torch.equal(tensor, given[name])}
    assert {name for name in found if ".seg_layers." not in name} <= loaded
    assert "decoder.seg_layers.0.weight" not in loaded


# --- with other parts ---


def test_with_ema_the_average_is_a_plain_network(make_trainer, run_epochs):
    trainer = make_trainer("nnUNetTrainerDSD_EMA_3epochs")
    run_epochs(trainer, 3)
    trainer.on_train_end()
    plain_network(trainer).load_state_dict(load(trainer, "checkpoint_ema.pth")["network_weights"])
    assert sorted(load(trainer, "checkpoint_final.pth")["nnunet_ext"]) == ["distillation_heads", "ema"]


def test_with_swa_the_average_is_a_plain_network(make_trainer, run_epochs):
    trainer = make_trainer("nnUNetTrainerDSD_SWA_4epochs")
    run_epochs(trainer, 4)
    trainer.on_train_end()
    plain_network(trainer).load_state_dict(load(trainer, "checkpoint_swa.pth")["network_weights"])


def test_with_cyclical_the_samples_are_plain_networks(make_trainer, run_epochs, checkpoint_files):
    # One cycle of five epochs, whose plateau begins at 0.8 * 5 = 4: one sample, at epoch 4
    trainer = make_trainer("nnUNetTrainerDSD_Cyclical1_5epochs")
    run_epochs(trainer, 5)
    trainer.on_train_end()
    assert "checkpoint_c0_e0004.pth" in checkpoint_files(trainer)
    for name in ("checkpoint_c0_e0004.pth", "checkpoint_swa.pth", "checkpoint_final.pth"):
        plain_network(trainer).load_state_dict(load(trainer, name)["network_weights"])
    posterior = load(trainer, "checkpoint_posterior.pth")
    assert posterior["trainer_name"] == "nnUNetTrainer_posterior1"  # predicts without the heads


@pytest.mark.parametrize("part", ["DSD", FULL, "DS"])
def test_without_deep_supervision(make_trainer, random_batch, part):
    trainer = make_trainer(f"nnUNetTrainer{part}_NoDeepSupervision")
    trainer.network.train()
    batch = with_one_target(random_batch(trainer, 0))
    output = trainer.network(batch["data"])
    assert isinstance(output, DistillationOutput)
    assert output.segmentation.shape == (2, 3, 32, 32)
    assert np.isfinite(trainer.train_step(batch)["loss"])
    trainer.network.eval()
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(batch)["loss"])


def test_without_deep_supervision_and_terms_it_is_stock_exactly(make_trainer, random_batch):
    ours = make_trainer("nnUNetTrainerDSD_NoDeepSupervision_member3", **NO_TERMS)
    stock = make_trainer("nnUNetTrainerNoDeepSupervision_member3")
    losses = [t.train_step(with_one_target(random_batch(t, 0)))["loss"] for t in (ours, stock)]
    assert losses[0] == losses[1]


def test_with_batch_norm_the_running_statistics_are_the_plain_networks(make_trainer, random_batch):
    # The features pass each normalisation once a step, whatever reads them
    trainer = make_trainer("nnUNetTrainerDSD_BN")
    trainer.network.train()
    trainer.train_step(random_batch(trainer, 0))
    counters = [value for key, value in trainer.network.state_dict().items() if key.endswith("num_batches_tracked")]
    assert len(counters) > 0
    assert {int(counter) for counter in counters} == {1}
