"""The precision that a network computes in: that of stock nnU-Net, single, or bfloat16 where it is fast."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from nnunet_ext.losses.targets import probabilities_of
from nnunet_ext.options import PRECISIONS, Precision, require_choice

WORTHWHILE_SPEEDUP = 1.5  # CPUs with bfloat16 units are 2 to 3 times as fast; others emulate it and are slower

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arithmetic:
    """The number types that a network computes with.

    Attributes:
        weights: type of the weights and of the input patches.
        autocast: type that `torch.autocast` uses for the layers that tolerate it; None disables autocast.
    """

    weights: torch.dtype = torch.float32
    autocast: torch.dtype | None = None

    def context(self, device: torch.device) -> AbstractContextManager[object]:
        """The context to call the network in."""
        return nullcontext() if self.autocast is None else torch.autocast(device.type, dtype=self.autocast)


SINGLE = Arithmetic()
BFLOAT16_WEIGHTS = Arithmetic(weights=torch.bfloat16)


def arithmetic_for(precision: Precision | None, device: torch.device) -> Arithmetic:
    """The number types of a precision on a device.

    None is the precision of stock nnU-Net: half-precision autocast on CUDA, single precision elsewhere. "auto" is
    bfloat16 on CPUs that are measured to compute it at least 1.5 times as fast, and otherwise the same as None.

    Raises:
        ValueError: if no precision has this name.
    """
    require_choice("precision", precision, (None, *PRECISIONS))
    if device.type == "cuda" and precision != "fp32":
        return Arithmetic(autocast=torch.bfloat16 if precision == "bf16" else torch.float16)
    fast = precision == "auto" and device.type == "cpu" and bfloat16_speedup() >= WORTHWHILE_SPEEDUP
    return BFLOAT16_WEIGHTS if precision == "bf16" or fast else SINGLE


@cache
def bfloat16_speedup() -> float:
    """How much faster this CPU convolves in bfloat16 than in single precision.

    Measured once per process, so that all models of an ensemble use the same precision.
    """
    convolution = nn.Conv2d(64, 64, 3, padding=1)
    image = torch.randn(1, 64, 96, 96)
    with torch.inference_mode():
        single = fastest(lambda: convolution(image))
        convolution, image = convolution.bfloat16(), image.bfloat16()
        return single / fastest(lambda: convolution(image))


def fastest(call: Callable[[], object], repeats: int = 5) -> float:
    """Time in seconds of the fastest of several calls, after one call to warm up."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def finished(network: Callable[[torch.Tensor], torch.Tensor], patches: torch.Tensor) -> float:
    """Runs a network and waits for a GPU to finish, by reading one of its numbers."""
    return network(patches).flatten()[0].item()


def log_cost(single: torch.Tensor, reduced: torch.Tensor, *, regions: bool) -> None:
    """Logs how much reduced precision changes probabilities and labels in some patches.

    Args:
        single: logits (B, C, *patch) in single precision.
        reduced: logits of the same patches in reduced precision.
        regions: whether the outputs are overlapping regions with one sigmoid each.
    """
    first, second = (probabilities_of(part, regions=regions) for part in (single, reduced))
    labels = [part > 0.5 if regions else part.argmax(1) for part in (first, second)]
    logger.warning(
        "Reduced precision, compared with single precision in %d patches: probabilities differ by %.1e on average "
        "and %.1e at most, labels in %.3f %% of the voxels.",
        len(single),
        (first - second).abs().mean().item(),
        (first - second).abs().max().item(),
        100 * (labels[0] != labels[1]).float().mean().item(),
    )
