"""Test-time augmentation as nnU-Net does it: mirroring along the axes that training mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

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
    """How a flip is called in a member's name: "flip-none", "flip-0", "flip-02"."""
    return "flip-" + ("".join(map(str, flip)) or "none")
