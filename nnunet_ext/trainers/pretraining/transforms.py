"""The augmentation of masked pre-training: space only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform

PROBABILITY = 0.2  # of rotating, and of scaling
SCALES = (0.7, 1.4)


def spatial_transforms(
    patch_size: Sequence[int], rotation: Any, mirror_axes: Sequence[int] | None, in_plane: bool
) -> ComposeTransforms:
    """Rotation and scaling with zeros outside of the image, then mirroring.

    Args:
        patch_size: voxels of the result.
        rotation: range of angles in radians.
        mirror_axes: axes that may be mirrored; None for none.
        in_plane: rotate and scale within slices only, for patches with thick slices.
    """
    size = patch_size[1:] if in_plane else patch_size
    space = SpatialTransform(
        size,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_elastic_deform=0,
        p_rotation=PROBABILITY,
        rotation=rotation,
        p_scaling=PROBABILITY,
        scaling=SCALES,
        p_synchronize_scaling_across_axes=1,
        bg_style_seg_sampling=False,
        border_mode_seg="constant",
        padding_value_seg=-1,
    )
    steps = [Convert3DTo2DTransform(), space, Convert2DTo3DTransform()] if in_plane else [space]
    if mirror_axes:
        steps.append(MirrorTransform(allowed_axes=mirror_axes))
    return ComposeTransforms(steps)
