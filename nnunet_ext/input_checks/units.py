"""Units of length in a header that the reader ignores, so that what it calls mm is something else.

SimpleITK converts the units of NIfTI to mm. nibabel does not, and neither of them reads those of NRRD and MetaImage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel

from nnunet_ext.input_checks.findings import UnreadableFile
from nnunet_ext.input_checks.text_headers import meta_fields, nrrd_fields

EXPECTED = "mm, which every spacing, distance and volume is taken for"
REMEDY = "Write the spacing in mm, and this unit, into the header of every image and label map of the dataset."
_NIFTI_UNITS = {1: "metres", 3: "micrometres"}  # of the lowest three bits of xyzt_units; 2 is mm, 0 unknown
_MILLIMETRES = ("mm", "millimeter", "millimeters", "millimetre", "millimetres", "", "?", "none")


def refuse_ignored_nifti_unit(header: Any, reader: str) -> None:
    """Refuses metres and micrometres for a reader that takes them for mm.

    Args:
        header: of a NIfTI file.
        reader: name of nnU-Net's class.

    Raises:
        UnreadableFile: if so.
    """
    unit = _NIFTI_UNITS.get(int(header["xyzt_units"]) & 7)
    if unit and reader.startswith("Nibabel"):
        raise UnreadableFile(f"{unit} in the header (xyzt_units), which {reader} ignores", EXPECTED, REMEDY)


def refuse_ignored_nrrd_unit(fields: Mapping[str, str]) -> None:
    """Refuses an NRRD header that names another unit than mm; see `nrrd_fields`."""
    for key in ("spaceunits", "units"):
        units = re.findall(r'"([^"]*)"', fields.get(key, ""))
        _require_millimetres(key, [unit for unit in units if unit.strip().lower() not in ("", "s", "ms")])


def refuse_ignored_meta_unit(fields: Mapping[str, str]) -> None:
    """Refuses a MetaImage header that names another unit than mm; see `meta_fields`."""
    _require_millimetres("DistanceUnits", [fields.get("DistanceUnits", "")])


def _require_millimetres(key: str, units: list[str]) -> None:
    others = [unit for unit in units if unit.strip().lower() not in _MILLIMETRES]
    if others:
        raise UnreadableFile(f"{others[0]} in the header ({key}), which SimpleITK ignores", EXPECTED, REMEDY)


def ignored_unit(file: Path, reader: str) -> str:
    """What is wrong with the unit of a readable file, in words; "" if nothing is. Reads the header only.

    Args:
        file: an image or a label map.
        reader: name of nnU-Net's class that reads it.
    """
    name = file.name.lower()
    try:
        if name.endswith((".nii", ".nii.gz")) and reader.startswith("Nibabel"):
            refuse_ignored_nifti_unit(nibabel.load(file).header, reader)
        elif name.endswith(".nrrd"):
            refuse_ignored_nrrd_unit(nrrd_fields(file)[0])
        elif name.endswith(".mha"):
            refuse_ignored_meta_unit(meta_fields(file)[0])
    except UnreadableFile as error:
        return f"found {error.found}; expected {error.expected}. {error.remedy}"
    return ""
