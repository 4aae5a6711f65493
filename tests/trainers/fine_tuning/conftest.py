"""Pre-trained files, and trainers that start from them as the stock command lets them."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights


@pytest.fixture
def pretrained(make_trainer, tmp_path):
    """A checkpoint of a stock training of the same network with other weights."""
    trainer = make_trainer("nnUNetTrainer_member7")
    file = tmp_path / "pretrained.pth"
    trainer.save_checkpoint(str(file))
    return file


@pytest.fixture
def encoder_only(pretrained, weights_of, tmp_path):
    """A file with the encoder's weights of that checkpoint, as a pre-training without a decoder leaves them."""
    file = tmp_path / "encoder.pth"
    weights = {name: value for name, value in weights_of(pretrained).items() if name.startswith("encoder.")}
    torch.save({"network_weights": weights}, file)
    return file


@pytest.fixture
def weights_of():
    """`weights_of(file)`: the checkpoint's weights."""
    return lambda file: torch.load(file, weights_only=False)["network_weights"]


@pytest.fixture
def fine_tuned(make_trainer, pretrained):
    """`fine_tuned(name, **options)`: a trainer after nnU-Net has loaded the pre-trained file into its network."""

    def make(name, *, file=pretrained, **options):
        trainer = make_trainer(name, **options)
        load_pretrained_weights(trainer.network, str(file))
        return trainer

    return make


@pytest.fixture
def resumed(make_trainer):
    """`resumed(trainer)`: a new trainer of the same name from the other one's `checkpoint_latest.pth`."""

    def make(trainer):
        again = make_trainer(type(trainer).__name__, initialize=False)
        again.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
        again.inference_allowed_mirroring_axes = (0, 1)
        return again

    return make


@pytest.fixture
def snapshot():
    """`snapshot(module)`: a copy of a module's weights."""
    return lambda module: deepcopy(module.state_dict())


@pytest.fixture
def log_of():
    """`log_of(trainer)`: the text of its log."""
    return lambda trainer: Path(trainer.log_file).read_text(encoding="utf-8")
