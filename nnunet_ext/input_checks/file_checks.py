"""The checks of a single file. Each yields its findings; none when all is well or nothing is known."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from nnunet_ext.input_checks.findings import Finding
from nnunet_ext.input_checks.reading import READER_DIMENSIONS
from nnunet_ext.input_checks.stored_image import StoredImage, flat, in_words

_VOXELS_AT_A_TIME = 1 << 22
_SMALLEST_VOLUME_OF_UNIT_DIRECTIONS = 1e-6
_REPAIR = "Write the image again from its source, with a correct header."


def absent(image: StoredImage) -> Iterator[Finding]:
    """A name without a file."""
    if not image.path.is_file():
        found = "a folder" if image.path.is_dir() else "no such file"
        what, remedy = "the image of a channel", "Check the name and put the file there."
        if image.is_segmentation:
            what, remedy = "the segmentation of the previous stage", "Predict the previous stage first."
        yield Finding(image.path, found, f"{what} under this name", remedy)


def wrong_ending(image: StoredImage) -> Iterator[Finding]:
    """A name without the file ending of the dataset."""
    if not image.path.name.lower().endswith(image.file_ending):
        remedy = "Convert the file to the format of the dataset; renaming it is not enough."
        yield Finding(image.path, f'the name "{image.path.name}"', f"a name that ends in {image.file_ending}", remedy)


def damaged(image: StoredImage) -> Iterator[Finding]:
    """A broken header, compressed stream or checksum."""
    if image.damage is not None:
        yield image.damage


def wrong_size(image: StoredImage) -> Iterator[Finding]:
    """Less or more voxel data than the header specifies."""
    if image.announced_bytes is not None and image.stored_bytes != image.announced_bytes:
        found = f"{image.stored_bytes} bytes of voxel data"
        shape = " x ".join(str(length) for length in (image.channels, *image.shape))
        expected = f"{image.announced_bytes} bytes, which the header specifies for {shape} voxels"
        yield Finding(image.path, found, expected, "The file is truncated or its header is wrong: export it again.")


def empty_axis(image: StoredImage) -> Iterator[Finding]:
    """An axis of length zero."""
    if 0 in (*image.shape, image.channels):
        found = f"an empty image of shape {image.shape}"
        yield Finding(image.path, found, "at least one voxel along each axis", _REPAIR)


def wrong_dimensions(image: StoredImage) -> Iterator[Finding]:
    """A number of axes that the reader does not support."""
    taken = READER_DIMENSIONS.get(image.reader, ())
    if image.dimensions is not None and taken and image.dimensions not in taken:
        expected = " or ".join(f"{axes}D" for axes in taken)
        found = f"a {image.dimensions}D image of shape {image.shape}"
        remedy = (
            "Save each channel as a file of its own, CASE_0000, CASE_0001 and so on; pictures in grey, RGB or RGBA."
        )
        yield Finding(image.path, found, f"{expected}, which the reader {image.reader} supports", remedy)


def several_numbers_per_voxel(image: StoredImage) -> Iterator[Finding]:
    """Colour, vector or complex voxels, which `SimpleITKIO` mistakes for one more axis."""
    if image.components > 1:
        found = f"{image.components} numbers per voxel (colour, vector or complex)"
        remedy = "Save each component as a channel of its own, CASE_0000, CASE_0001 and so on."
        yield Finding(image.path, found, "one number per voxel", remedy)


def impossible_spacing(image: StoredImage) -> Iterator[Finding]:
    """A spacing that is zero, negative, NaN or infinite."""
    if not all(math.isfinite(spacing) and spacing > 0 for spacing in image.spacing_mm):
        remedy = "Write the true spacing into the header (for a TIFF stack, into the .json file beside it)."
        yield Finding(image.path, f"a spacing of {in_words(image.spacing_mm)}", "finite numbers above 0", remedy)


def position_not_finite(image: StoredImage) -> Iterator[Finding]:
    """An origin or a direction that is NaN or infinite."""
    for name, numbers in (("an origin", image.origin_mm), ("directions", flat(image.direction))):
        if not all(math.isfinite(number) for number in numbers):
            yield Finding(image.path, f"{name} of {in_words(numbers)}", "finite numbers", _REPAIR)


def singular_direction(image: StoredImage) -> Iterator[Finding]:
    """Axes that lie in one plane or have no length."""
    direction = image.direction
    if direction is None or not np.isfinite(direction).all():
        return
    volume = math.sqrt(max(float(np.linalg.det(direction.T @ direction)), 0.0))
    if volume < _SMALLEST_VOLUME_OF_UNIT_DIRECTIONS:
        found = f"singular directions {in_words(flat(direction))}"
        yield Finding(image.path, found, "axes that point in different directions", _REPAIR)


def scaling_not_finite(image: StoredImage) -> Iterator[Finding]:
    """A NIfTI slope or intercept that is NaN or infinite; the readers then skip the scaling."""
    if not (math.isfinite(image.slope) and math.isfinite(image.intercept)):
        found = f"scl_slope {image.slope:g} and scl_inter {image.intercept:g} in the header"
        remedy = "Write the true scaling into the header: scl_slope 1 and scl_inter 0 if there is none."
        yield Finding(image.path, found, "finite numbers", remedy)


def voxels_not_finite(image: StoredImage) -> Iterator[Finding]:
    """Voxels that are NaN, infinite or too large for the 32 bits of the network's input."""
    nan, infinite = _count_not_finite(image)
    if nan + infinite:
        found = f"{nan} NaN and {infinite} infinite voxels of {math.prod(image.shape) * image.channels}"
        remedy = "Find out where they come from, and replace them with the background value."
        yield Finding(image.path, found, "finite numbers within the range of a 32-bit float", remedy)


def labels_not_whole(image: StoredImage) -> Iterator[Finding]:
    """A previous stage whose labels are not whole numbers, which nnU-Net would cut off: 0.9999 becomes 0."""
    if not image.is_segmentation or image.values is None or image.components > 1:
        return
    labels = np.unique(image.values) * image.slope + image.intercept
    broken = labels[np.isfinite(labels) & (labels != np.rint(labels))]
    if broken.size:
        slope = f" (scl_slope {image.slope:g})" if image.slope != 1 else ""
        found = f"the label {broken[0]:.8g}{slope}"
        yield Finding(image.path, found, "whole numbers", "Save the labels as integers, without a slope.")


def _count_not_finite(image: StoredImage) -> tuple[int, int]:
    """NaN and infinite voxels after the scaling and the conversion to 32 bits, as the network would see them."""
    scaled = (image.slope, image.intercept) != (1.0, 0.0)
    if image.values is None or (image.values.dtype.kind in "iub" and not scaled):
        return 0, 0
    if image.components > 1 or not (math.isfinite(image.slope) and math.isfinite(image.intercept)):
        return 0, 0
    voxels, nan, infinite = image.values.reshape(-1), 0, 0
    for start in range(0, voxels.size, _VOXELS_AT_A_TIME):
        part = voxels[start : start + _VOXELS_AT_A_TIME]
        with np.errstate(over="ignore", invalid="ignore"):
            part = (part * image.slope + image.intercept if scaled else part).astype(np.float32)
        nan += int(np.isnan(part).sum())
        infinite += int(np.isinf(part).sum())
    return nan, infinite
