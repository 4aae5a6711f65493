"""Damaged and inconsistent image files, found before a case is predicted.

nnU-Net's readers accept much of it silently: SimpleITK fills the missing part of a truncated .nii.gz with zeros.
`checks.CHECKS` lists the checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nnunet_ext.input_checks.case_checks import CheckedCase
from nnunet_ext.input_checks.checks import CHECKS
from nnunet_ext.input_checks.findings import BadInputError, Finding
from nnunet_ext.input_checks.reading import read_image
from nnunet_ext.input_checks.stored_image import StoredImage

__all__ = ["CHECKS", "BadInputError", "Finding", "check_case", "require_good_case"]


def check_case(
    files: Sequence[Path | str],
    *,
    file_ending: str,
    channels: int,
    previous_stage: Path | str | None = None,
    reader: str | None = None,
) -> list[Finding]:
    """Checks the files of one case for everything that may be wrong.

    Each file is read once and one volume is in memory at a time. With a file ending that none of nnU-Net's readers
    supports, only the names and the presence of the files are checked.

    Args:
        files: The files in the order of the channels.
        file_ending: `file_ending` of dataset.json, for example ".nii.gz".
        channels: Number of `channel_names` in dataset.json. A colour picture holds several.
        previous_stage: Segmentation of the previous stage, if this is the full resolution stage of a cascade.
        reader: `image_reader_writer` of the plans; "NibabelIO" and "SimpleITKIO" accept different files. None or an
            unknown name: the reader that nnU-Net chooses for the ending.

    Returns:
        The findings in the order of the files, then those about the case as a whole; empty when the case is good.
    """
    findings: list[Finding] = []
    case = CheckedCase(images=[], file_ending=file_ending, channels=channels)
    images = [_look_at(Path(file), file_ending, reader, False, findings) for file in files]
    case.images = images
    if previous_stage is not None:
        case.previous_stage = _look_at(Path(previous_stage), file_ending, reader, True, findings)
    for check in CHECKS:
        if check.scope == "case":
            findings += check.find(case)
    return findings


def require_good_case(
    files: Sequence[Path | str],
    *,
    file_ending: str,
    channels: int,
    previous_stage: Path | str | None = None,
    reader: str | None = None,
) -> None:
    """Refuses a case with damaged or inconsistent files; the arguments are those of `check_case`.

    Raises:
        BadInputError: Something is wrong; the message lists all findings, one per line.
    """
    findings = check_case(
        files, file_ending=file_ending, channels=channels, previous_stage=previous_stage, reader=reader
    )
    if findings:
        raise BadInputError(findings)


def _look_at(
    path: Path, file_ending: str, reader: str | None, is_segmentation: bool, findings: list[Finding]
) -> StoredImage:
    """Adds the findings about one file, and returns what the checks of the case need: all but the voxels."""
    image = read_image(path, file_ending, reader, is_segmentation)
    for check in CHECKS:
        if check.scope == "file":
            findings += check.find(image)
    return replace(image, values=None, blank_value=_only_value(image.values))


def _only_value(values: np.ndarray | None) -> float | None:
    """The value of all voxels, if it is the same everywhere."""
    if values is None or values.size == 0 or values.dtype.kind not in "iubf":
        return None
    smallest, largest = values.min(), values.max()
    return float(smallest) if smallest == largest else None
