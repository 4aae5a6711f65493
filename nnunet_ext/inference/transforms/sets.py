"""Which transforms a case is looked at with: one row per set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nnunet_ext.inference.transforms.flip import IDENTITY, flips
from nnunet_ext.inference.transforms.transform import Transform

MirrorAxes = Sequence[int] | None  # as a checkpoint stores them

# From the axes that training mirrored to the transforms, the identity first.
TRANSFORM_SETS: dict[str, Callable[[MirrorAxes], Sequence[Transform]]] = {
    "flips": flips,
    "none": lambda mirror_axes: [IDENTITY],
}
