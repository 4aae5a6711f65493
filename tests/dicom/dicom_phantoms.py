"""DICOM series written with pydicom: every pixel says where it is, so that a mix-up of axes shows."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed: pip install 'nnunet-ext[dicom]'")
from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: E402
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid  # noqa: E402

SHAPE = (4, 5, 6)  # slices, rows, columns
SPACING_MM = (3.0, 2.0, 1.0)  # between slices, rows, columns
ORIGIN_MM = np.array([10.0, -20.0, 30.0])
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))  # directions of a row and of a column
_SIGNED_AXES = [sign * axis for axis in np.eye(3) for sign in (1, -1)]
PLANES = [(row, column) for row, column in itertools.product(_SIGNED_AXES, repeat=2) if not np.dot(row, column)]
INTERCEPT = -1024
UIDS = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "FrameOfReferenceUID": "1.2.3.5"}


def value_at(position: np.ndarray) -> np.ndarray:
    """What a pixel holds at a position (..., 3) in mm, LPS: it grows differently along each axis."""
    return np.rint(position @ np.array([100, 10, 1])).astype(int)


def write_series(
    folder: Path, *, axes: tuple = AXIAL, step: Any = None, slices: int = SHAPE[0], reverse: bool = False, **tags: Any
) -> list[Path]:
    """Writes a series whose files are named in the order of the slices, or against it.

    Args:
        folder: to write to.
        axes: directions of a row and of a column.
        step: from a slice to the next, in mm; None for SPACING_MM along the normal.
        slices: number of slices.
        reverse: whether the first file is the last slice.
        tags: other attributes of all files.

    Returns:
        The files in the order of the slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.array(axes)
    step = np.cross(row, column) * SPACING_MM[0] if step is None else np.array(step)
    numbers = range(slices)[::-1] if reverse else range(slices)
    files = []
    for slice_number, file_number in enumerate(numbers):
        path = folder / f"IM{file_number:04d}"
        write_slice(path, row, column, ORIGIN_MM + slice_number * step, InstanceNumber=file_number + 1, **tags)
        files.append(path)
    return files


def write_slice(path: Path, row: np.ndarray, column: np.ndarray, position: np.ndarray, **tags: Any) -> None:
    """Writes one slice, with 16-bit pixels that the intercept makes the values of `value_at`."""
    _, rows, columns = SHAPE
    at = (
        position
        + np.arange(rows)[:, None, None] * SPACING_MM[1] * column
        + np.arange(columns)[None, :, None] * SPACING_MM[2] * row
    )  # (rows, columns, 3)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    data.update(
        {
            **UIDS,
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "PatientID": "phantom",
            "PatientName": "Phantom^Dicom",
            "PatientBirthDate": "",
            "PatientSex": "O",
            "StudyID": "1",
            "StudyDate": "20260101",
            "StudyTime": "120000",
            "AccessionNumber": "",
            "ReferringPhysicianName": "",
            "Modality": "CT",
            "Rows": rows,
            "Columns": columns,
            "PixelSpacing": [SPACING_MM[1], SPACING_MM[2]],
            "SliceThickness": SPACING_MM[0],
            "ImageOrientationPatient": [*map(float, row), *map(float, column)],
            "ImagePositionPatient": [float(number) for number in position],
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "RescaleSlope": 1,
            "RescaleIntercept": INTERCEPT,
            "PixelData": (value_at(at) - INTERCEPT).astype("<i2").tobytes(),
        }
        | tags
    )
    data.save_as(path)


def edit(path: Path, **tags: Any) -> None:
    """Changes attributes of a file."""
    data = pydicom.dcmread(path)
    data.update(tags)
    data.save_as(path)
