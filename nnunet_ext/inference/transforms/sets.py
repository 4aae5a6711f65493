"""The sets of test-time transforms that a member is averaged over, one row per set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nnunet_ext.inference.transforms.flip import IDENTITY, flips
from nnunet_ext.inference.transforms.transform import Transform
from nnunet_ext.models.model import Model

TransformSet = Callable[[Model], Sequence[Transform]]

# Each function returns the transforms of a model, the identity first. Which ones are valid depends on the model.
TRANSFORM_SETS: dict[str, TransformSet] = {
    "flips": lambda model: flips(model.mirror_axes),
    "none": lambda model: [IDENTITY],
}
