"""A training that was stopped and continued with --c equals one that ran through.

The part member1 seeds every epoch, and augmentation runs in line, so that even the weights can be compared.
"""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from nnunet_ext.files.checkpoints import load_checkpoint

TRAINER = "nnUNetTrainerCyclical2_member1_20epochs_1iters"
# T = 20, M = 2: T_c = 10, plateau from floor(0.8 * 10) = 8 on.
SAMPLED_EPOCHS = [8, 9, 18, 19]
WEIGHTS = [
    *("checkpoint_c0_e0008.pth", "checkpoint_c0_e0009.pth", "checkpoint_c1_e0018.pth", "checkpoint_c1_e0019.pth"),
    *("checkpoint_final.pth", "checkpoint_posterior.pth", "checkpoint_swa.pth"),
]


# What lies in the fold's folder when the process ends at such a moment, by whether checkpoint_latest.pth is written
# every epoch or, as nnU-Net does, every 50th: then there is but checkpoint_best.pth to continue from.
ENDS_WITH_CHECKPOINT_LATEST = [
    "after epoch 5",
    "after epoch 8",
    "after epoch 9",
    "before the checkpoints of epoch 18",
]
ENDS_WITHOUT = ["after epoch 18"]


@pytest.fixture(scope="module")
def train_and_keep(plain_dataset, train_here, tmp_path_factory):
    """`train_and_keep(moments, save_every)`: copies of the fold's folder at each moment and "at the end"."""

    def train(moments, save_every):
        fold_folder, kept = plain_dataset.model(TRAINER, "2d") / "fold_0", tmp_path_factory.mktemp("kept")
        shutil.rmtree(fold_folder, ignore_errors=True)

        def keep(moment):
            if moment in moments and not (kept / moment).exists():
                shutil.copytree(fold_folder, kept / moment)

        def prepare(trainer):
            trainer.save_every = save_every
            end_of_epoch, save = trainer.on_epoch_end, trainer.save_checkpoint

            def end_epoch():
                end_of_epoch()
                keep(f"after epoch {trainer.current_epoch - 1}")

            def save_checkpoint(path):
                keep(f"before the checkpoints of epoch {trainer.current_epoch}")
                save(path)

            trainer.on_epoch_end, trainer.save_checkpoint = end_epoch, save_checkpoint

        train_here(plain_dataset, "2d", 0, TRAINER, prepare=prepare)
        keep_end = kept / "at the end"
        shutil.move(fold_folder, keep_end)
        return kept

    return train


@pytest.fixture(scope="module")
def run(train_and_keep):
    """A training as it is."""
    return train_and_keep(ENDS_WITHOUT, save_every=50)


@pytest.fixture(scope="module")
def run_with_checkpoint_latest(train_and_keep):
    """The same training, which writes a checkpoint to continue from after each epoch."""
    return train_and_keep(ENDS_WITH_CHECKPOINT_LATEST, save_every=1)


@pytest.fixture(scope="module")
def uninterrupted(run):
    return run / "at the end"


def manifest(fold_folder):
    return json.loads((fold_folder / "samples.json").read_text(encoding="utf-8"))["samples"]


def assert_same_training(fold_folder, expected):
    found_rates, rates = (
        load_checkpoint(folder / "checkpoint_final.pth")["logging"]["lrs"] for folder in (fold_folder, expected)
    )
    assert found_rates == rates
    for found, sample in zip(manifest(fold_folder), manifest(expected), strict=True):
        assert {**found, "sha256": ""} == {**sample, "sha256": ""}
    assert {path.name for path in fold_folder.glob("*.pth")} == {path.name for path in expected.glob("*.pth")}
    for name in WEIGHTS:
        found_weights = load_checkpoint(fold_folder / name)["network_weights"]
        weights = load_checkpoint(expected / name)["network_weights"]
        assert found_weights.keys() == weights.keys()
        for key, tensor in weights.items():
            assert torch.equal(found_weights[key], tensor), f"{key} in {name}"


def test_the_plateau_of_both_cycles_is_sampled(uninterrupted):
    assert [sample["epoch"] for sample in manifest(uninterrupted)] == SAMPLED_EPOCHS


def test_the_same_training_twice_gives_the_same_weights(run_with_checkpoint_latest, uninterrupted):
    # what the comparisons below rest on
    assert_same_training(run_with_checkpoint_latest / "at the end", uninterrupted)


@pytest.fixture
def continue_from(plain_dataset, train_here):
    """`continue_from(left)`: the fold's folder after the training was continued from what was left in it."""

    def train(left):
        fold_folder = plain_dataset.model(TRAINER, "2d") / "fold_0"
        shutil.rmtree(fold_folder, ignore_errors=True)
        shutil.copytree(left, fold_folder)
        train_here(plain_dataset, "2d", 0, TRAINER, resume=True)
        return fold_folder

    return train


# while the rate falls, between two samples, between two cycles, after a sample and before its checkpoint
@pytest.mark.parametrize("moment", ENDS_WITH_CHECKPOINT_LATEST)
def test_a_continued_training_equals_an_uninterrupted_one(
    moment, run_with_checkpoint_latest, uninterrupted, continue_from
):
    left = run_with_checkpoint_latest / moment
    assert (left / "checkpoint_latest.pth").is_file()
    assert not (left / "checkpoint_final.pth").exists()
    assert_same_training(continue_from(left), uninterrupted)


@pytest.mark.parametrize("moment", ENDS_WITHOUT)
def test_a_training_continued_from_its_best_checkpoint_equals_an_uninterrupted_one(
    moment, run, uninterrupted, continue_from
):
    assert not (run / moment / "checkpoint_latest.pth").exists()
    assert_same_training(continue_from(run / moment), uninterrupted)


def test_continuing_a_finished_training_changes_nothing(uninterrupted, continue_from):
    assert_same_training(continue_from(uninterrupted), uninterrupted)
