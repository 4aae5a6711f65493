"""The checks of a case as a whole: the number of its channels, and one grid for all its files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_ext.input_checks.findings import Finding
from nnunet_ext.input_checks.pictures import PICTURE_READER
from nnunet_ext.input_checks.stored_image import StoredImage, flat, in_words

_ORIGIN_TOLERANCE_VOXELS = 1e-3
_DIRECTION_TOLERANCE = 1e-4
_RESAMPLE = "Resample the image to the grid of the other one, or take the file that belongs to this case."


@dataclass
class CheckedCase:
    """A case whose files have been checked one by one; the images no longer hold their voxels."""

    images: Sequence[StoredImage]
    file_ending: str
    channels: int
    previous_stage: StoredImage | None = None


def without_contrast(case: CheckedCase) -> Iterator[Finding]:
    """No channel with contrast. One blank channel of several may be a sequence that was not acquired."""
    if case.images and all(image.blank_value is not None for image in case.images):
        first = case.images[0]
        remedy = "Check the export of this image: it is blank."
        yield Finding(first.path, f"the same value, {first.blank_value:g}, in all voxels", "contrast", remedy)


def wrong_channels(case: CheckedCase) -> Iterator[Finding]:
    """Channels that are missing, too many or out of order."""
    if any(not image.shape and image.reader in (PICTURE_READER, "") for image in case.images):
        return  # a picture that cannot be read may hold one, three or four channels
    count = sum(image.channels for image in case.images)
    numbers = _channel_numbers(case)
    expected_numbers = list(range(len(case.images)))
    if count != case.channels:
        missing = sorted(set(range(case.channels)) - set(numbers or ()))
        several = [f"{image.path.name} holds {image.channels}" for image in case.images if image.channels > 1]
        remedy = "Provide the channels that dataset.json lists under channel_names."
        if numbers is not None and missing and count < case.channels and not several:
            remedy = f"Add {', '.join(_name_of_channel(case, number) for number in missing)}."
        found = f"{count} channels in {len(case.images)} files" + "".join(f", {text}" for text in several)
        first = case.images[0].path if case.images else None
        yield Finding(first, found, f"{case.channels} channels", remedy)
    elif numbers is not None and numbers != expected_numbers:
        found = "the channel numbers " + ", ".join(f"_{number:04d}" for number in numbers)
        expected = ", ".join(f"_{number:04d}" for number in expected_numbers) + " in this order"
        yield Finding(case.images[0].path, found, expected, "Rename the files or put them in order.")


def _channel_numbers(case: CheckedCase) -> list[int] | None:
    """The k of each CASE_000k; None if the names are not such numbered files of one case."""
    pattern = re.compile(r"(.*)_(\d{4})" + re.escape(case.file_ending), re.IGNORECASE | re.DOTALL)
    matches = [pattern.fullmatch(image.path.name) for image in case.images]
    if None in matches or len({match[1] for match in matches if match}) > 1:
        return None
    return [int(match[2]) for match in matches if match]


def _name_of_channel(case: CheckedCase, number: int) -> str:
    case_name = case.images[0].path.name[: -len(f"_0000{case.file_ending}")] if case.images else "CASE"
    return f"{case_name}_{number:04d}{case.file_ending}"


def channels_on_different_grids(case: CheckedCase) -> Iterator[Finding]:
    """Channels that differ in shape, spacing, origin or direction."""
    readable = [image for image in case.images if image.shape]
    for image in readable[1:]:
        if image.channels != readable[0].channels:
            found, expected = f"{image.channels} channels in the file", f"{readable[0].channels}"
            expected += f", as in {readable[0].path.name}"
            yield Finding(image.path, found, expected, "Save all channels of a case in the same way.")
        yield from _different_grid(image, readable[0])


def previous_stage_on_different_grid(case: CheckedCase) -> Iterator[Finding]:
    """A segmentation of the previous stage that is not on the grid of the image."""
    previous = case.previous_stage
    readable = [image for image in case.images if image.shape]
    if previous is None or not previous.shape:
        return
    if previous.channels != 1:
        found = f"a segmentation of the previous stage with {previous.channels} channels"
        yield Finding(previous.path, found, "one channel", "Predict the previous stage again.")
    if readable:
        yield from _different_grid(previous, readable[0])


def _different_grid(image: StoredImage, reference: StoredImage) -> Iterator[Finding]:
    if image.shape != reference.shape:
        expected = f"{reference.shape}, as in {reference.path.name}"
        yield Finding(image.path, f"the shape {image.shape}", expected, _RESAMPLE)
        return
    # nnU-Net refuses different spacings by np.allclose. About origins and directions it only warns: rounding in
    # 32-bit headers must not get a case refused, as it would with the absolute tolerance of np.allclose, 1e-8.
    spacings = [abs(spacing) for spacing in reference.spacing_mm if math.isfinite(spacing)]
    origin_tolerance = _ORIGIN_TOLERANCE_VOXELS * min(spacings, default=1.0)
    for name, numbers, expected_numbers, tolerance in (
        ("the spacing", image.spacing_mm, reference.spacing_mm, 1e-8),
        ("the origin", image.origin_mm, reference.origin_mm, origin_tolerance),
        ("the directions", flat(image.direction), flat(reference.direction), _DIRECTION_TOLERANCE),
    ):
        if not _agree(numbers, expected_numbers, tolerance):
            expected = f"{in_words(expected_numbers)}, as in {reference.path.name}"
            yield Finding(image.path, f"{name} {in_words(numbers)}", expected, _RESAMPLE)


def _agree(numbers: Sequence[float], expected: Sequence[float], tolerance: float) -> bool:
    if not numbers or not expected or not np.isfinite([*numbers, *expected]).all():
        return True  # unknown, or reported by another check
    return len(numbers) == len(expected) and np.allclose(numbers, expected, rtol=1e-5, atol=tolerance)
