"""Which transforms a member is averaged over: one row per set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nnunet_ext.inference.transforms.flip import IDENTITY, flips
from nnunet_ext.inference.transforms.transform import Transform
from nnunet_ext.models.model import Model

TransformSet = Callable[[Model], Sequence[Transform]]

# From a model to its transforms, the identity first: what is allowed depends on its training, its patch, its spacing.
TRANSFORM_SETS: dict[str, TransformSet] = {
    "flips": lambda model: flips(model.mirror_axes),
    "none": lambda model: [IDENTITY],
}
