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


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def train_from_scratch(plain_dataset, train_here):
    """`train_from_scratch(prepare)`: a new training in an empty folder, which is returned."""

    def train(prepare=lambda trainer: None):
        shutil.rmtree(plain_dataset.model(TRAINER, "2d"), ignore_errors=True)
        train_here(plain_dataset, "2d", 0, TRAINER, prepare=prepare)

    return train


@pytest.fixture(scope="module")
def uninterrupted(train_from_scratch, plain_dataset, tmp_path_factory):
    """The fold folder of a training that ran through, out of the way of the others."""
    train_from_scratch()
    kept = tmp_path_factory.mktemp("uninterrupted") / "fold_0"
    shutil.move(plain_dataset.model(TRAINER, "2d") / "fold_0", kept)
    return kept


def stopped_after(epoch):
    """Stops at the end of an epoch, after nnU-Net has written a checkpoint to continue from."""

    def prepare(trainer):
        trainer.save_every = 1  # nnU-Net's own is 50
        end_of_epoch = trainer.on_epoch_end

        def stop():
            end_of_epoch()
            if trainer.current_epoch == epoch + 1:
                raise Killed

        trainer.on_epoch_end = stop

    return prepare


def stopped_between_sample_and_checkpoint(epoch):
    """Stops after the sample of an epoch was written and before nnU-Net's checkpoint_latest.pth was."""

    def prepare(trainer):
        trainer.save_every = 1
        save = trainer.save_checkpoint

        def stop(path):
            if trainer.current_epoch == epoch:
                raise Killed
            save(path)

        trainer.save_checkpoint = stop

    return prepare


def stopped_without_checkpoint_latest(epoch):
    """Stops in the first 50 epochs, when nnU-Net has but checkpoint_best.pth to continue from."""

    def prepare(trainer):
        stopped_after(epoch)(trainer)
        trainer.save_every = 50

    return prepare


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


def test_the_same_training_twice_gives_the_same_weights(train_from_scratch, uninterrupted, plain_dataset):
    # what the comparisons below rest on
    train_from_scratch()
    assert_same_training(plain_dataset.model(TRAINER, "2d") / "fold_0", uninterrupted)


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(stopped_after(5), id="while the rate falls"),
        pytest.param(stopped_after(8), id="between two samples"),
        pytest.param(stopped_after(9), id="between two cycles"),
        pytest.param(stopped_between_sample_and_checkpoint(18), id="after a sample, before its checkpoint"),
        pytest.param(stopped_without_checkpoint_latest(18), id="without checkpoint_latest"),
    ],
)
def test_a_continued_training_equals_an_uninterrupted_one(
    train_from_scratch, train_here, plain_dataset, uninterrupted, prepare
):
    with pytest.raises(Killed):
        train_from_scratch(prepare)
    train_here(plain_dataset, "2d", 0, TRAINER, resume=True)
    assert_same_training(plain_dataset.model(TRAINER, "2d") / "fold_0", uninterrupted)


def test_continuing_a_finished_training_changes_nothing(train_here, plain_dataset, uninterrupted):
    fold_folder = plain_dataset.model(TRAINER, "2d") / "fold_0"
    shutil.rmtree(fold_folder, ignore_errors=True)
    shutil.copytree(uninterrupted, fold_folder)
    train_here(plain_dataset, "2d", 0, TRAINER, resume=True)
    assert_same_training(fold_folder, uninterrupted)
