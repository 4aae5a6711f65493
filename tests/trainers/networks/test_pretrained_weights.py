"""`-pretrained_weights` of one network start every classifier of a Streaming trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

from nnunet_ext.files.checkpoints import save_checkpoint
from nnunet_ext.trainers.pretrained_weights import PretrainedWeightsError, fitting_weights


def stock_checkpoint(trainer, file: Path) -> dict[str, torch.Tensor]:
    """A checkpoint of the planned network alone, each weight drawn anew; some have several names."""
    one = trainer.network.classifiers[0].state_dict()
    drawn = {value.data_ptr(): torch.rand_like(value) for value in one.values()}
    weights = {name: drawn[value.data_ptr()] for name, value in one.items()}
    save_checkpoint({"network_weights": weights}, file)
    return weights


@pytest.mark.parametrize(("part", "classifiers"), [("Streaming", 2), ("StreamingFixed3", 3)])
def test_every_classifier_starts_from_the_weights_of_one_network(part, classifiers, make_streaming, tmp_path):
    trainer = make_streaming(part)
    file = tmp_path / "stock.pth"
    weights = stock_checkpoint(trainer, file)
    with pytest.raises(AssertionError, match="is missing in the pretrained model weights"):
        load_pretrained_weights(trainer.network, str(file))
    given = ["4", "2d", "0", "-tr", f"nnUNetTrainer{part}", "-pretrained_weights", str(file)]
    with fitting_weights(given) as arguments:
        assert arguments[:-1] == given[:-1]
        load_pretrained_weights(trainer.network, arguments[-1])
    assert not Path(arguments[-1]).exists()
    assert len(trainer.network.classifiers) == classifiers
    for classifier in trainer.network.classifiers:
        for name, value in classifier.state_dict().items():
            # nnU-Net keeps the last layers, which depend on the labels, as they were initialised
            assert torch.equal(value, weights[name]) != (".seg_layers." in name)


def test_weights_of_a_streaming_trainer_are_passed_on(make_streaming, tmp_path):
    file = tmp_path / "streaming.pth"
    save_checkpoint({"network_weights": make_streaming("Streaming").network.state_dict()}, file)
    given = ["4", "2d", "0", "-tr", "nnUNetTrainerStreaming", "-pretrained_weights", str(file)]
    with fitting_weights(given) as arguments:
        assert arguments == given


@pytest.mark.parametrize(
    "given",
    [
        ["4", "2d", "0", "-tr", "nnUNetTrainerStreaming"],
        ["4", "2d", "0", "-pretrained_weights", "a.pth"],
        ["4", "2d", "0", "-tr", "nnUNetTrainerOfSomeoneElse", "-pretrained_weights", "a.pth"],
    ],
)
def test_other_trainings_are_left_alone(given):
    with fitting_weights(given) as arguments:
        assert arguments == given


def test_classifiers_of_other_networks_cannot_start_from_one(make_streaming, tmp_path):
    file = tmp_path / "stock.pth"
    stock_checkpoint(make_streaming("Streaming"), file)
    given = ["4", "2d", "0", "-tr", "nnUNetTrainerStreamingUNetD3P", "-pretrained_weights", str(file)]
    with (
        pytest.raises(PretrainedWeightsError, match="classifiers differ from the planned network"),
        fitting_weights(given),
    ):
        pass
