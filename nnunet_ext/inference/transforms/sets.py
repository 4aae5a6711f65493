"""The sets of test-time transforms that a member is averaged over, one row per set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from nnunet_ext.inference.transforms.flip import IDENTITY, flips
from nnunet_ext.inference.transforms.plane import (
    IN_PLANE,
    Plane,
    axis_words,
    spacing_in,
    square_plane,
    why_no_square_plane,
)
from nnunet_ext.inference.transforms.rot90 import Rot90
from nnunet_ext.inference.transforms.rotate import Rotation
from nnunet_ext.inference.transforms.scale import Scaling
from nnunet_ext.inference.transforms.transform import Transform
from nnunet_ext.models.model import Model

DEGREES = (10.0, -10.0)
FACTORS = (0.95, 1.05)

TransformSet = Callable[[Model], Sequence[Transform]]

logger = logging.getLogger(__name__)


def with_rot90(model: Model) -> list[Transform]:
    """The model's flips and the rotations by 90, 180 and 270 degrees in its square plane, none of them twice.

    Raises:
        ValueError: if patch size or spacing forbid rotations by 90 degrees.
    """
    plane = square_plane(model)
    if plane is None:
        raise ValueError(
            f"{why_no_square_plane(model)} Use --tta flips, or --tta full, which leaves these rotations out."
        )
    return _flips_and_rot90(model, plane)


def with_everything(model: Model) -> list[Transform]:
    """Flips, rotations by 90 degrees where they are allowed, small rotations and scales."""
    square = square_plane(model)
    if square is None:
        logger.warning("--tta full leaves out the rotations by 90 degrees. %s", why_no_square_plane(model))
    exact = flips(model.mirror_axes) if square is None else _flips_and_rot90(model, square)
    plane = square or IN_PLANE
    rotations = [Rotation(degrees, plane, spacing_in(model, plane)) for degrees in DEGREES]
    return [*exact, *rotations, *(Scaling(factor, plane) for factor in FACTORS)]


def _flips_and_rot90(model: Model, plane: Plane) -> list[Transform]:
    logger.info("%s: rotations in the plane of %s", model.folder, axis_words(model, plane))
    dimensions = len(model.configuration.patch_size)
    both_axes_flip = {dimensions + axis for axis in plane} <= set(model.mirror_axes or ())
    quarters = (1, 3) if both_axes_flip else (1, 2, 3)  # mirroring along both axes is the rotation by 180 degrees
    return [*flips(model.mirror_axes), *(Rot90(number, plane) for number in quarters)]


# Each function returns the transforms of a model, the identity first. Which ones are valid depends on the model.
TRANSFORM_SETS: dict[str, TransformSet] = {
    "flips": lambda model: flips(model.mirror_axes),
    "rot90": with_rot90,
    "full": with_everything,
    "none": lambda model: [IDENTITY],
}
