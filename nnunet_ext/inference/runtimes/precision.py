"""In which precision a network computes: stock's, single, or bfloat16 where a processor has units for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from nnunet_ext.options import PRECISIONS, Precision, require_choice

WORTHWHILE_SPEEDUP = 1.5  # without units for it bfloat16 is emulated and slower; with them it is 2 to 3 times as fast

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arithmetic:
    """How a network runs.

    Attributes:
        weights: type of its weights and of the patches that it gets.
        autocast: type that `torch.autocast` chooses for the layers that bear it; None leaves all as the weights are.
    """

    weights: torch.dtype = torch.float32
    autocast: torch.dtype | None = None

    def context(self, device: torch.device) -> AbstractContextManager[object]:
        """In which the network is called."""
        return nullcontext() if self.autocast is None else torch.autocast(device.type, dtype=self.autocast)


SINGLE = Arithmetic()
BFLOAT16_WEIGHTS = Arithmetic(weights=torch.bfloat16)


def arithmetic_for(precision: Precision | None, device: torch.device) -> Arithmetic:
    """What a precision means on a device.

    None is what nnU-Net predicts with: half-precision autocast on CUDA, single precision elsewhere. "auto" is
    bfloat16 on CPUs that compute it at least 1.5 times as fast, measured on the spot, and else the same as None.

    Raises:
        ValueError: if there is no such precision.
    """
    require_choice("precision", precision, (None, *PRECISIONS))
    if device.type == "cuda" and precision != "fp32":
        return Arithmetic(autocast=torch.bfloat16 if precision == "bf16" else torch.float16)
    fast = precision == "auto" and device.type == "cpu" and bfloat16_speedup() >= WORTHWHILE_SPEEDUP
    return BFLOAT16_WEIGHTS if precision == "bf16" or fast else SINGLE


@cache
def bfloat16_speedup() -> float:
    """How much faster this CPU convolves in bfloat16 than in single precision.

    Measured once a process: all models of an ensemble must get the same answer.
    """
    convolution = nn.Conv2d(64, 64, 3, padding=1)
    image = torch.randn(1, 64, 96, 96)
    with torch.inference_mode():
        single = fastest(lambda: convolution(image))
        convolution, image = convolution.bfloat16(), image.bfloat16()
        return single / fastest(lambda: convolution(image))


def fastest(call: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest of some calls, after one that warms up."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def log_cost(single: torch.Tensor, reduced: torch.Tensor, *, regions: bool) -> None:
    """Tells what reduced precision changes in some patches.

    Args:
        single: logits (B, C, *patch) in single precision.
        reduced: the same in reduced precision.
        regions: each output has a sigmoid of its own.
    """
    first, second = (torch.sigmoid(part) if regions else torch.softmax(part, 1) for part in (single, reduced))
    labels = [part > 0.5 if regions else part.argmax(1) for part in (first, second)]
    logger.warning(
        "Reduced precision, in %d patches: probabilities differ from single precision by %.1e on average and %.1e at "
        "most, labels in %.3f %% of the voxels.",
        len(single),
        (first - second).abs().mean().item(),
        (first - second).abs().max().item(),
        100 * (labels[0] != labels[1]).float().mean().item(),
    )
