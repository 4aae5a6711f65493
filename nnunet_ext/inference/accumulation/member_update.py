"""What a member changes in the moments, all classes at once: in plain torch, or compiled for a GPU.

Plain torch launches a kernel for each operation and passes the values through memory between them; compiled, one
kernel reads a member's probabilities once and updates mean, variance and expected entropy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import torch

from nnunet_ext.error_text import first_line
from nnunet_ext.inference.accumulation.entropy import entropy
from nnunet_ext.inference.runtimes.precision import fastest

Number = float | torch.Tensor


class Sums(NamedTuple):
    """The moments of some voxels, which an update changes in place.

    Attributes:
        mean: (C, *spatial).
        expected_entropy: (*spatial), in nats.
        squares: (C, *spatial), the weighted sum of squared differences from the mean; None if it is not tracked.
    """

    mean: torch.Tensor
    expected_entropy: torch.Tensor
    squares: torch.Tensor | None


Update = Callable[[Sums, torch.Tensor, Number, Number], None]
Compile = Callable[[Update], Update]

TRIAL_SHAPE = (4, 64, 128, 128)
TRIAL_REPEATS = 3
LARGEST_DIFFERENCE = 1e-5  # compiled sums round otherwise

logger = logging.getLogger(__name__)


def update_classes(sums: Sums, values: torch.Tensor, weight: Number, share: Number) -> None:
    """Takes a member with a softmax into the moments of those before it, in place.

    Args:
        sums: of the members before.
        values: (C, *spatial), the member's probabilities.
        weight: the member's weight: one number, or one per voxel (*spatial).
        share: its share in the sum of the weights so far, with its own; likewise.
    """
    move_mean(sums.mean, sums.squares, values, weight, share)
    sums.expected_entropy.lerp_(entropy(values, at_once=True), share)


def update_regions(sums: Sums, values: torch.Tensor, weight: Number, share: Number) -> None:
    """`update_classes` for a member with overlapping regions and one sigmoid each."""
    move_mean(sums.mean, sums.squares, values, weight, share)
    sums.expected_entropy.lerp_(entropy(values, regions=True, at_once=True), share)


def move_mean(
    mean: torch.Tensor, squares: torch.Tensor | None, values: torch.Tensor, weight: Number, share: Number
) -> None:
    """Moves a mean and its sum of squares towards a member's values, in place; any shape, the same for all."""
    if squares is None:
        mean.lerp_(values, share)
        return
    difference = values - mean
    mean.lerp_(values, share)
    # Welford's update; sums of squares would go negative
    squares.add_(difference.mul_(values - mean).mul_(weight))


def plain_update(*, regions: bool) -> Update:
    """The update of classes or of overlapping regions in plain torch."""
    return update_regions if regions else update_classes


class CompiledUpdate:
    """An update compiled once for volumes of all shapes and for all weights.

    Args:
        regions: whether the outputs are overlapping regions instead of classes.
        compile_update: returns the compiled form of a function; None uses `torch.compile`.
    """

    def __init__(self, *, regions: bool, compile_update: Compile | None = None) -> None:
        compile_one = (
            partial(torch.compile, fullgraph=True, dynamic=True) if compile_update is None else compile_update
        )
        self._plain = plain_update(regions=regions)
        self._compiled = compile_one(self._plain)

    @torch.inference_mode()
    def __call__(self, sums: Sums, values: torch.Tensor, weight: Number, share: Number) -> None:
        """See `update_classes`; weights per voxel, which are rare, are taken in plain torch."""
        if isinstance(weight, torch.Tensor) or isinstance(share, torch.Tensor):
            self._plain(sums, values, weight, share)
            return
        # Numbers become tensors, because torch compiles again for other numbers.
        self._compiled(sums, values, *(torch.full((), each, device=values.device) for each in (weight, share)))


@cache
def faster_update(device: torch.device, *, regions: bool) -> Update:
    """The compiled update, where it can be compiled and is worth it; see `worth_it`. Tried once per process."""
    plain, compiled = plain_update(regions=regions), CompiledUpdate(regions=regions)
    return compiled if worth_it(compiled, plain, device) else plain


def worth_it(compiled: Update, plain: Update, device: torch.device) -> bool:
    """Whether a compiled update gives the moments of the plain one, in less time, for random members on a device."""
    first, *others = trial_members(device)
    plain_sums, sums = sums_of(first), sums_of(first)
    taken_in(plain, plain_sums, others)
    try:
        taken_in(compiled, sums, others)
    except RuntimeError as error:  # such as a compiler that is not installed
        logger.info("Members are summed up in plain torch: the sums cannot be compiled (%s).", first_line(error))
        return False
    pairs = zip(sums, plain_sums, strict=True)
    difference = max(
        (one - other).abs().max().item() for one, other in pairs if one is not None and other is not None
    )
    if not difference <= LARGEST_DIFFERENCE:  # NaN is not
        logger.info("Members are summed up in plain torch: compiled sums differ by %.1e.", difference)
        return False
    seconds = [fastest(partial(taken_in, update, sums, others), TRIAL_REPEATS) for update in (compiled, plain)]
    logger.info("Summing up members takes %.2g s compiled and %.2g s in plain torch.", *seconds)
    return seconds[0] < seconds[1]


def trial_members(device: torch.device) -> list[torch.Tensor]:
    """Three random members."""
    generator = torch.Generator(device).manual_seed(0)
    return [torch.softmax(torch.randn(TRIAL_SHAPE, device=device, generator=generator), 0) for _ in range(3)]


def sums_of(member: torch.Tensor) -> Sums:
    """The moments of one member (C, *spatial)."""
    return Sums(member.clone(), entropy(member, at_once=True), torch.zeros_like(member))


def taken_in(update: Update, sums: Sums, members: Sequence[torch.Tensor]) -> float:
    """Takes members with the weights 2 and 3 in, after one of weight 1, and reads a number, to wait for a GPU."""
    for values, weight, total in zip(members, (2.0, 3.0), (3.0, 6.0), strict=True):
        update(sums, values, weight, weight / total)
    return sums.mean.flatten()[0].item()
