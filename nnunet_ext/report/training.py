"""What nnU-Net logged while it trained a fold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.files.checkpoints import CheckpointError, load_checkpoint
from nnunet_ext.files.fold_folder import latest_checkpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldTraining:
    """One value an epoch each; all of the same length.

    Attributes:
        training_loss: Dice loss and cross-entropy, as nnU-Net adds them; can be below 0.
        validation_loss: likewise.
        pseudo_dice: mean over the foreground on validation patches.
        learning_rate: of the optimiser.
    """

    training_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    pseudo_dice: tuple[float, ...]
    learning_rate: tuple[float, ...]


def read_training(fold_folder: Path) -> FoldTraining | None:
    """The log in the fold's latest checkpoint.

    Returns:
        None if there is no checkpoint with a log of at least one epoch, or it cannot be read, which is logged.
    """
    file = latest_checkpoint(fold_folder)
    if file is None:
        return None
    try:
        log = load_checkpoint(file, mmap=True).get("logging") or {}
    except CheckpointError as error:
        logger.warning("The report leaves out the training of %s: %s", fold_folder, error)
        return None
    series = [_floats(log.get(key, ())) for key in ("train_losses", "val_losses", "mean_fg_dice", "lrs")]
    epochs = min(map(len, series))  # a checkpoint in the middle of an epoch has one value more of some
    return FoldTraining(*(values[:epochs] for values in series)) if epochs else None


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
