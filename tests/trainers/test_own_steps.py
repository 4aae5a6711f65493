"""A training without labels, with a toy that fills in half an image: training, resuming, refusals."""

import itertools
import math
from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_ext.files.checkpoints import CheckpointError, load_checkpoint
from nnunet_ext.models.members import read_member
from nnunet_ext.trainers.names import trainer_class
from nnunet_ext.trainers.own_steps import CannotSegmentError, OwnStepsTrainer


class nnUNetTrainerFillIn(OwnStepsTrainer):
    """Gets the left half of each image and learns the right half."""

    def set_hyperparameters(self):
        super().set_hyperparameters()
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 3, 2, 2
        self.save_every = 1

    def get_dataloaders(self):
        folder = Path(self.preprocessed_dataset_folder)
        pictures = [
            torch.from_numpy(blosc2.open(str(file))[:, 0, :32, :32]) for file in sorted(folder.glob("*.b2nd"))
        ]
        batch = {"data": torch.stack(pictures), "keys": ["case1", "case2"]}
        return itertools.repeat(batch), itertools.repeat(batch)

    def inputs_and_targets(self, batch):
        hidden = torch.zeros_like(batch["data"], dtype=torch.bool)
        hidden[..., 16:] = True
        return batch["data"].masked_fill(hidden, 0.0), [batch["data"], hidden]

    def training_loss(self, outputs, targets):
        picture, hidden = targets
        return (outputs[:, :1] - picture)[hidden].square().mean()

    def validation_figures(self, outputs, targets):
        picture, hidden = targets
        return {"largest error": (outputs[:, :1] - picture)[hidden].abs().max()}


@pytest.fixture
def make_fill_in(make_trainer_of, preprocessed_cases):
    """`make_fill_in()`: a trainer with preprocessed images, and no segmentation anywhere."""

    def make(trainer_class=nnUNetTrainerFillIn, **options):
        torch.manual_seed(0)
        trainer = make_trainer_of(trainer_class, **options)
        preprocessed_cases(trainer)
        for file in Path(trainer.preprocessed_dataset_folder).glob("*_seg.b2nd"):
            file.unlink()
        return trainer

    return make


def file_of(trainer, name):
    return Path(trainer.output_folder) / name


# --- training ---


def test_it_trains_validates_and_has_nothing_to_segment(make_fill_in):
    trainer = make_fill_in()
    trainer.run_training()
    trainer.perform_actual_validation()
    losses = trainer.logger.get_value("val_losses", step=None)
    assert len(losses) == 3
    assert losses[2] < losses[0]
    errors = trainer.logger.get_value("validation largest error", step=None)
    assert [error > math.sqrt(loss) for error, loss in zip(errors, losses, strict=True)] == [True] * 3
    assert not file_of(trainer, "validation").exists()
    assert file_of(trainer, "checkpoint_final.pth").is_file()


def test_the_steps_are_what_the_hooks_say(make_fill_in):
    trainer = make_fill_in()
    batch = next(trainer.get_dataloaders()[0])
    picture = batch["data"]
    left = picture.clone()
    left[..., 16:] = 0
    with torch.no_grad():
        difference = (trainer.network.train()(left)[:, :1] - picture)[..., 16:]
    assert trainer.train_step(batch)["loss"] == pytest.approx(difference.square().mean().item(), rel=1e-5)
    with torch.no_grad():
        difference = (trainer.network.eval()(left)[:, :1] - picture)[..., 16:]
        found = trainer.validation_step(batch)
    assert found["loss"] == pytest.approx(difference.square().mean().item(), rel=1e-5)
    assert found["validation largest error"] == pytest.approx(difference.abs().max().item(), rel=1e-5)


def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(make_fill_in):
    trainer = make_fill_in()
    trainer.on_train_start()
    for epoch, loss in enumerate([3.0, 1.0, 2.0]):
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        trainer.on_train_epoch_end([{"loss": np.array(loss)}])
        trainer.on_validation_epoch_end([{"loss": loss - 0.5}, {"loss": loss + 0.5}])
        trainer.on_epoch_end()
        assert trainer.current_epoch == epoch + 1
    best = load_checkpoint(file_of(trainer, "checkpoint_best.pth"))
    assert best["current_epoch"] == 2  # the one after it
    assert best["logging"]["val_losses"] == [3.0, 1.0]
    assert [len(curve) for curve in best["logging"].values()] == [2] * len(best["logging"])


def test_a_resumed_training_repeats_an_uninterrupted_one_bit_for_bit(make_fill_in):
    whole = make_fill_in()
    whole.run_training()

    class Interrupted(nnUNetTrainerFillIn):
        def on_train_epoch_start(self):
            if self.current_epoch == 2:
                raise KeyboardInterrupt
            super().on_train_epoch_start()

    stopped = make_fill_in(Interrupted)
    with pytest.raises(KeyboardInterrupt):
        stopped.run_training()
    resumed = make_fill_in(initialize=False)
    resumed.load_checkpoint(str(file_of(stopped, "checkpoint_latest.pth")))
    assert resumed.current_epoch == 2
    resumed.run_training()

    assert all(
        torch.equal(*pair) for pair in zip(resumed.network.parameters(), whole.network.parameters(), strict=True)
    )
    for name in ("val_losses", "validation largest error"):
        assert resumed.logger.get_value(name, step=None) == whole.logger.get_value(name, step=None)
    assert resumed._best_ema == whole._best_ema


def test_a_network_without_a_decoder_trains(make_fill_in):
    class Single(nnUNetTrainerFillIn):
        def training_network(self, network):
            return torch.nn.Conv2d(1, 1, 3, padding=1)

    trainer = make_fill_in(Single)
    trainer.run_training()
    assert np.isfinite(trainer.logger.get_value("train_losses", step=-1))


def test_it_combines_with_other_parts(make_fill_in):
    trainer = make_fill_in(
        type("nnUNetTrainerFillIn_Cyclical", (nnUNetTrainerFillIn, trainer_class("nnUNetTrainerCyclical")), {})
    )
    trainer.run_training()
    samples = sorted(path.name for path in Path(trainer.output_folder).glob("checkpoint_c*.pth"))
    assert samples  # which cannot segment either
    with pytest.raises(CheckpointError, match="must be networks that segment"):
        read_member(file_of(trainer, samples[0]))


@pytest.mark.parametrize(
    ("hook", "call"),
    [
        ("inputs_and_targets", lambda trainer: trainer.train_step({"data": torch.zeros(1, 1, 32, 32)})),
        ("training_loss", lambda trainer: trainer.loss(torch.zeros(1), torch.zeros(1))),
    ],
)
def test_a_training_that_lacks_a_hook_says_which(make_fill_in, hook, call):
    with pytest.raises(NotImplementedError, match=hook):
        call(make_fill_in(OwnStepsTrainer))


# --- prediction ---


@pytest.mark.parametrize("name", ["checkpoint_final.pth", "checkpoint_best.pth"])
def test_our_predictor_refuses_its_checkpoints(make_fill_in, name):
    trainer = make_fill_in()
    trainer.run_training()
    with pytest.raises(CheckpointError, match=rf"{name} was written by nnUNetTrainerFillIn.*-pretrained_weights"):
        read_member(file_of(trainer, name))


def test_stock_predictor_fails_with_the_reason(make_fill_in, monkeypatch, tmp_path):
    trainer = make_fill_in()
    trainer.run_training()
    # nnU-Net's own way to find trainers of others
    (tmp_path / "external").mkdir()
    (tmp_path / "external" / "fill_in.py").write_text(
        "from nnunet_ext.trainers.own_steps import OwnStepsTrainer\n\n"
        "class nnUNetTrainerFillIn(OwnStepsTrainer):\n    pass\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "external"))
    predictor = nnUNetPredictor(device=torch.device("cpu"))
    with pytest.raises(CannotSegmentError, match="nnUNetTrainerFillIn is a training without labels"):
        predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (0,), "checkpoint_final.pth")


def test_a_segmentation_starts_from_its_weights(make_fill_in, make_trainer):
    trainer = make_fill_in()
    trainer.save_checkpoint(str(file_of(trainer, "pretrained.pth")))
    weights = load_checkpoint(file_of(trainer, "pretrained.pth"))["network_weights"]
    make_trainer_network = trainer_class("nnUNetTrainer").build_network_architecture
    network = make_trainer_network(trainer.plans_manager, trainer.configuration_manager, 1, 3, False)
    network.load_state_dict(weights)  # strict: the planned network's


def test_checkpoints_of_other_trainings_are_members(make_trainer):
    trainer = make_trainer("nnUNetTrainer_member0")
    trainer.save_checkpoint(str(file_of(trainer, "checkpoint.pth")))
    assert read_member(file_of(trainer, "checkpoint.pth")).trainer_name == "nnUNetTrainer_member0"
