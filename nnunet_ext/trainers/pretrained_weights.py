"""Weights to start from (`-pretrained_weights`), fitted to a network that holds several copies of the planned one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from torch import Tensor

from nnunet_ext.files.checkpoints import load_checkpoint, save_checkpoint
from nnunet_ext.trainers.names import trainer_class
from nnunet_ext.trainers.networks.streaming import Streaming

FLAG = "-pretrained_weights"
TRAINER_FLAG = "-tr"
PART = "Streaming"
CLASSIFIER = "classifiers."


class PretrainedWeightsError(ValueError):
    """Weights that a trainer cannot start from; the message says why."""


@contextmanager
def fitting_weights(arguments: Sequence[str]) -> Iterator[list[str]]:
    """The arguments of `nnUNetv2_train`, with weights of one network written out for every classifier of `Streaming`.

    nnU-Net takes weights by their names, and would fail with the first name that is missing. The file that it gets
    instead is removed at the end.

    Args:
        arguments: as typed.

    Raises:
        PretrainedWeightsError: if the classifiers are not all the planned network.
        TrainerNameError: if there is no such trainer.
        CheckpointError: if the file cannot be read, or holds more than data.
    """
    changed = list(arguments)
    file, trainer = value_of(FLAG, changed), value_of(TRAINER_FLAG, changed)
    if file is None or trainer is None or PART not in trainer:
        yield changed
        return
    streaming = cast(type[Streaming], trainer_class(trainer))
    weights = load_checkpoint(Path(file))["network_weights"]
    if any(name.startswith(CLASSIFIER) for name in weights):  # of a Streaming trainer
        yield changed
        return
    if any(streaming.classifier_networks()):
        raise PretrainedWeightsError(
            f"{FLAG} must be weights of a {trainer}, whose classifiers differ from the planned network; {file} holds "
            f"one network. Leave out {FLAG}, or train Streaming with the planned network."
        )
    with TemporaryDirectory() as folder:
        written = Path(folder) / "checkpoint_pretrained.pth"
        save_checkpoint({"network_weights": for_each_classifier(weights, streaming.classifiers)}, written)
        changed[changed.index(FLAG) + 1] = str(written)
        yield changed


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """What follows a flag; None if it is not there."""
    given = list(arguments)
    return given[given.index(flag) + 1] if flag in given[:-1] else None


def for_each_classifier(weights: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """The weights of one network under the names that a `StreamingNetwork` of that many copies has."""
    copies = {f"{CLASSIFIER}{k}.{name}": value for k in range(count) for name, value in weights.items()}
    return {**copies, "regions": torch.zeros((), dtype=torch.bool)}  # set by the trainer when it starts
