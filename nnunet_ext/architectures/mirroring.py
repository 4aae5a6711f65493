"""nnU-Net's test-time augmentation: mirroring along the axes that were mirrored in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import torch

Flip = tuple[int, ...]  # spatial axes to mirror; () is the image as it is


def mirror_flips(mirror_axes: Sequence[int] | None, *, enabled: bool = True) -> list[Flip]:
    """All combinations of mirror axes, the identity first, in stock nnU-Net's order.

    Args:
        mirror_axes: spatial axes from 0, as stored in a checkpoint; None or empty gives the identity alone.
        enabled: False gives the identity alone (`--disable_tta`).
    """
    axes = tuple(mirror_axes or ()) if enabled else ()
    return [flip for size in range(len(axes) + 1) for flip in combinations(axes, size)]


def flip_name(flip: Flip) -> str:
    """The name of a flip within the name of a member: "flip-none", "flip-0", "flip-02"."""
    return "flip-" + ("".join(map(str, flip)) or "none")


def mean_over_flips(
    network: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor, flips: Sequence[Flip]
) -> torch.Tensor:
    """Mean of a network's logits over mirrored copies of an image, mirrored back.

    Args:
        network: maps (B, channels, *spatial) to (B, C, *spatial).
        image: (B, channels, *spatial).
        flips: the flips to average over, at least one.

    Returns:
        (B, C, *spatial) in fp32, summed in the order of the flips.

    Raises:
        ValueError: if there are no flips.
    """
    total: torch.Tensor | None = None
    for flip in flips:
        axes = [axis + 2 for axis in flip]  # axes 0 and 1 are batch and channels
        logits = network(torch.flip(image, axes) if axes else image).float()
        logits = torch.flip(logits, axes) if axes else logits
        total = logits if total is None else total.add_(logits)
    if total is None:
        raise ValueError("Averaging needs at least one flip; found none. Pass the identity, ().")
    return total.div_(len(flips))
