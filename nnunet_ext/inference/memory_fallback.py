"""Sums that do not fit into the memory of a GPU are kept in main memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from tqdm import tqdm

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


def where_it_fits(
    predict_on: Callable[[torch.device], Result], device: torch.device, case: str, progress: tqdm | None = None
) -> Result:
    """Predicts with the sums over the members on a GPU and, where they do not fit, once more on the CPU.

    Args:
        predict_on: predicts the case with its sums on a device, which need not be the networks'.
        device: where the networks run.
        case: its name.
        progress: is put back before members run again.

    Raises:
        torch.OutOfMemoryError: if it does not fit with the sums on the CPU either.
    """
    if device.type == "cuda":
        done = progress.n if progress is not None else 0
        try:
            return predict_on(device)
        except torch.OutOfMemoryError:
            logger.warning("%s does not fit into the memory of the GPU; summing up in main memory.", case)
            torch.cuda.empty_cache()
            if progress is not None:
                progress.update(done - progress.n)
    return predict_on(torch.device("cpu"))
