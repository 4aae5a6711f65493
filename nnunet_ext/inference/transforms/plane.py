"""The plane in which test-time transforms rotate and scale."""

from __future__ import annotations

import math

from nnunet_ext.models.model import Model

# Two spatial axes counted from the last one, so that they mean the same in a patch of a 2D model and in its volume.
Plane = tuple[int, int]

IN_PLANE: Plane = (-2, -1)  # nnU-Net's planner puts the axis with the largest spacing first
PLANES: dict[int, tuple[Plane, ...]] = {2: (IN_PLANE,), 3: (IN_PLANE, (-3, -1), (-3, -2))}
SPACING_TOLERANCE = 0.01  # relative; a rotation by 90 degrees then stretches the anatomy by at most 1 %


def square_plane(model: Model) -> Plane | None:
    """The plane in which a model's patches may be rotated by 90 degrees: of several, the one of the last axes.

    None if patch size or spacing forbid it in every plane, see `why_no_square_plane`.
    """
    patch, spacing = patch_and_spacing(model)
    for first, second in PLANES[len(patch)]:
        same_spacing = math.isclose(spacing[first], spacing[second], rel_tol=SPACING_TOLERANCE)
        if patch[first] == patch[second] and same_spacing:
            return first, second
    return None


def why_no_square_plane(model: Model) -> str:
    """Why a model's patches may not be rotated by 90 degrees: the rule, and what was found."""
    patch, spacing = patch_and_spacing(model)
    return (
        f"Rotations by 90 degrees need two axes with the same patch size and, within 1 %, the same spacing; "
        f"{model.folder} has patches of {' x '.join(map(str, patch))} voxels and a spacing of "
        f"{' x '.join(f'{value:g}' for value in spacing)} mm."
    )


def spacing_in(model: Model, plane: Plane) -> tuple[float, float]:
    """The spacing in mm along the two axes of a plane, at the network's resolution."""
    _, spacing = patch_and_spacing(model)
    return spacing[plane[0]], spacing[plane[1]]


def patch_and_spacing(model: Model) -> tuple[list[int], list[float]]:
    """Patch size in voxels and spacing in mm, along the axes that the network sees in a patch."""
    patch = [int(side) for side in model.configuration.patch_size]
    return patch, [float(value) for value in model.configuration.spacing][-len(patch) :]


def axis_words(model: Model, plane: Plane) -> str:
    """A plane in words: "axes 0 and 2 of the patch"."""
    dimensions = len(model.configuration.patch_size)
    first, second = (dimensions + axis for axis in plane)
    return f"axes {first} and {second} of the patch"
