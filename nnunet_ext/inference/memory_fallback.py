"""Falls back to main memory for sums that do not fit into the memory of the GPU."""

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
    """Predicts a case with the sums over its members on the GPU or, if they do not fit, again with them on the CPU.

    Args:
        predict_on: predicts the case with its sums on the given device; the networks stay on `device`.
        device: where the networks run.
        case: the case's name.
        progress: progress bar, reset before the members run again.

    Raises:
        torch.OutOfMemoryError: if it does not fit with the sums on the CPU either.
    """
    if device.type == "cuda":
        done = progress.n if progress is not None else 0
        try:
            return predict_on(device)
        except torch.OutOfMemoryError:
            logger.warning(
                "%s does not fit into GPU memory; predicting it again with the sums in main memory, which is slower.",
                case,
            )
            torch.cuda.empty_cache()
            if progress is not None:
                progress.update(done - progress.n)
    return predict_on(torch.device("cpu"))
