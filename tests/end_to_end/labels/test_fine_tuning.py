"""Stock nnUNetv2_train with -pretrained_weights and a file that holds no more than an encoder."""

from __future__ import annotations

import json

import pytest
import torch

from nnunet_ext.files.checkpoints import load_checkpoint
from nnunet_ext.trainers.fine_tuning.incoming_weights import PretrainedWeightsError

TRAINER = "nnUNetTrainerFinetune_4epochs_1iters"
ADAPTERS = "nnUNetTrainerLoRA2_4epochs_1iters"
RATES = [1e-3, 1e-3, 1e-3, 1e-3 * 0.5**0.9]  # one epoch for each warm-up, then 1e-3 (1 - k/2)^0.9


@pytest.fixture(scope="module")
def pretrained(plain_dataset, train_here, tmp_path_factory):
    """The encoder of a short stock training, as a pre-training would leave it."""
    train_here(plain_dataset, "2d", 0, "nnUNetTrainer_1epochs_1iters")
    folder = plain_dataset.model("nnUNetTrainer_1epochs_1iters", "2d") / "fold_0"
    weights = load_checkpoint(folder / "checkpoint_final.pth")["network_weights"]
    file = tmp_path_factory.mktemp("pretrained") / "encoder.pth"
    torch.save({"network_weights": {name: w for name, w in weights.items() if name.startswith("encoder.")}}, file)
    return file


@pytest.fixture(scope="module")
def fold_folder(plain_dataset, run_command, env_line, pretrained):
    """The first fold, fine-tuned by the stock command."""
    model = ("-tr", TRAINER, "-p", plain_dataset.plans, "-device", "cpu", "-pretrained_weights", pretrained)
    run_command("nnUNetv2_train", plain_dataset.number, "2d", 0, *model, **env_line)
    return plain_dataset.model(TRAINER, "2d") / "fold_0"


def test_the_stock_command_fine_tunes(fold_folder):
    final = load_checkpoint(fold_folder / "checkpoint_final.pth")
    assert final["trainer_name"] == TRAINER
    assert final["logging"]["lrs"] == pytest.approx(RATES)
    assert (fold_folder / "validation" / "summary.json").is_file()


def test_the_log_says_what_was_transferred(fold_folder):
    (log,) = fold_folder.glob("training_log*.txt")
    text = log.read_text(encoding="utf-8")
    assert "tensors of the encoder." in text
    assert "Fine-tuning: network warm-up." in text


def test_a_finished_training_is_continued_without_the_file(fold_folder, plain_dataset, train_here):
    train_here(plain_dataset, "2d", 0, TRAINER, resume=True)
    assert load_checkpoint(fold_folder / "checkpoint_final.pth")["current_epoch"] == 4


def test_without_a_file_a_training_ends_with_what_to_do(plain_dataset, train_here):
    with pytest.raises(PretrainedWeightsError, match="Add -pretrained_weights FILE"):
        train_here(plain_dataset, "2d", 0, "nnUNetTrainerFinetune3_4epochs_1iters")


def test_low_rank_adapters_are_merged_for_every_stock_command(plain_dataset, run_here, pretrained):
    """The final validation predicts with nnU-Net's own network."""
    model = ("-tr", ADAPTERS, "-p", plain_dataset.plans, "-device", "cpu")
    assert run_here("train", plain_dataset.number, "2d", 0, *model, "-pretrained_weights", pretrained) == 0
    folder = plain_dataset.model(ADAPTERS, "2d") / "fold_0"
    summary = json.loads((folder / "validation" / "summary.json").read_text(encoding="utf-8"))
    assert 0 <= summary["foreground_mean"]["Dice"] <= 1
    plain = load_checkpoint(plain_dataset.model("nnUNetTrainer_1epochs_1iters", "2d") / "fold_0/checkpoint_final.pth")
    assert list(load_checkpoint(folder / "checkpoint_final.pth")["network_weights"]) == list(plain["network_weights"])
