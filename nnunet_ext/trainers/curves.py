"""Additional curves in nnU-Net's log, with one value per epoch: the mean over its steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from torch import distributed


def log_curve(logger: MetaLogger, name: str, value: float, epoch: int) -> None:
    """Logs a value under a new name. The curve is stored in checkpoints, so that a resumed training continues it.

    Epochs before the first value are NaN.
    """
    curve = logger.get_checkpoint().setdefault(name, [])
    curve.extend([math.nan] * (epoch - len(curve)))
    logger.log(name, value, epoch)


def values_before(logger: MetaLogger, name: str, epoch: int) -> list[float]:
    """What was logged under a name in each epoch before this one; NaN where nothing was."""
    curve = logger.get_checkpoint().get(name, [])[:epoch]
    return [*map(float, curve), *[math.nan] * (epoch - len(curve))]


def mean_over_processes(values: list[float]) -> float:
    """The mean of the values of all steps of an epoch, over all processes with DDP."""
    if distributed.is_available() and distributed.is_initialized():
        gathered: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(gathered, values)
        values = [value for process in gathered for value in process]
    return float(np.mean(values))
