"""Curves of our own in nnU-Net's log, one value per epoch."""

from __future__ import annotations

import math

from nnunetv2.training.logging.nnunet_logger import MetaLogger


def log_curve(logger: MetaLogger, name: str, value: float, epoch: int) -> None:
    """Logs a value under a name that nnU-Net does not know; checkpoints hold the curve, so a resume continues it.

    Epochs before the first value are NaN.
    """
    curve = logger.get_checkpoint().setdefault(name, [])
    curve.extend([math.nan] * (epoch - len(curve)))
    logger.log(name, value, epoch)
