"""The list of all checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from nnunet_ext.input_checks import case_checks, file_checks
from nnunet_ext.input_checks.findings import Finding


@dataclass(frozen=True)
class Check:
    """One row of `CHECKS`.

    Attributes:
        name: Short name.
        looks_for: What the check finds.
        scope: A "file" check takes the `StoredImage` of each file, a "case" check takes the `CheckedCase`.
        find: Yields the findings; none when all is well.
    """

    name: str
    looks_for: str
    scope: Literal["file", "case"]
    find: Callable[..., Iterator[Finding]]


CHECKS = (
    Check("absent", "a name without a file", "file", file_checks.absent),
    Check("ending", "a name without the file ending of the dataset", "file", file_checks.wrong_ending),
    Check("damage", "a broken header, compressed stream or checksum", "file", file_checks.damaged),
    Check("size", "less or more voxel data than the header specifies", "file", file_checks.wrong_size),
    Check("empty", "an axis of length zero", "file", file_checks.empty_axis),
    Check("dimensions", "a number of axes that the reader does not support", "file", file_checks.wrong_dimensions),
    Check("components", "colour, vector or complex voxels in a file", "file", file_checks.several_numbers_per_voxel),
    Check("spacing", "a spacing that is zero, negative, NaN or infinite", "file", file_checks.impossible_spacing),
    Check("position", "an origin or a direction that is NaN or infinite", "file", file_checks.position_not_finite),
    Check("direction", "axes that lie in one plane or have no length", "file", file_checks.singular_direction),
    Check("scaling", "a NIfTI slope or intercept that is NaN or infinite", "file", file_checks.scaling_not_finite),
    Check("finite", "voxels that are NaN, infinite or too large", "file", file_checks.voxels_not_finite),
    Check("labels", "a previous stage whose labels are not whole numbers", "file", file_checks.labels_not_whole),
    Check("contrast", "a case in which no channel has contrast", "case", case_checks.without_contrast),
    Check("channels", "channels that are missing, too many or out of order", "case", case_checks.wrong_channels),
    Check("grid", "channels that differ in shape or geometry", "case", case_checks.channels_on_different_grids),
    Check("previous", "a previous stage on another grid", "case", case_checks.previous_stage_on_different_grid),
)
