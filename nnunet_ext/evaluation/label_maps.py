"""A prediction and its ground truth as two label maps on one grid, or the reason why they cannot be compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_ext.error_text import in_words
from nnunet_ext.input_checks.itk_header import numbers_per_voxel
from nnunet_ext.input_checks.pictures import spacing_is_known
from nnunet_ext.input_checks.units import ignored_unit

GEOMETRY_TOLERANCE = 1e-3  # relative to a voxel; headers hold rounded numbers
# Integers that are stored with a slope return rounded: 1.0000153 of 16 bits, 0.996 of 8 bits and two labels.
LABEL_TOLERANCE = 0.01


class NotComparableError(ValueError):
    """A prediction that cannot be compared with its truth; the message says why."""


@dataclass(frozen=True)
class LabelMapPair:
    """Truth and prediction of one case.

    Attributes:
        truth: (z, y, x) integers, on the axes of nnU-Net's reader; (1, y, x) for a 2D image.
        prediction: the same shape.
        spacing_mm: voxel spacing along these axes in mm.
    """

    truth: np.ndarray
    prediction: np.ndarray
    spacing_mm: tuple[float, ...]


def read_pair(
    truth_file: Path,
    prediction_file: Path,
    reader: BaseReaderWriter,
    labels: Collection[int],
    ignore_label: int | None,
    translate: Callable[[np.ndarray], np.ndarray] | None = None,
) -> LabelMapPair:
    """Reads both with the dataset's reader and checks that they belong together.

    Args:
        truth_file: label map.
        prediction_file: label map.
        reader: reader of the dataset.
        labels: all labels that a prediction may contain, including background.
        ignore_label: label that the truth may contain as well.
        translate: translates the truth to the labels of the prediction, if it has others.

    Raises:
        NotComparableError: if a file cannot be read, the grids differ, or a label is not in the dataset.
    """
    truth, truth_properties = read_label_map(truth_file, reader)
    if translate is not None:
        truth = translate(truth)
    prediction, properties = read_label_map(prediction_file, reader)
    if prediction.shape != truth.shape:
        raise NotComparableError(
            f"Prediction and truth must have the same shape; {prediction_file.name} has {prediction.shape}, its "
            f"truth {truth.shape}. Was it predicted from another image?"
        )
    name = type(reader).__name__
    # An assumed spacing says nothing about the grid, and the other file may know it.
    if not spacing_is_known(truth_file, name, is_label_map=True):
        truth_properties = {**truth_properties, "spacing": properties["spacing"]}
    elif not spacing_is_known(prediction_file, name, is_label_map=True):
        properties = {**properties, "spacing": truth_properties["spacing"]}
    require_same_geometry(truth_properties, properties, prediction_file.name)
    known = {int(label) for label in labels}
    require_labels(prediction, known, f"the prediction {prediction_file.name}")
    require_labels(truth, known | ({ignore_label} if ignore_label is not None else set()), f"the truth {truth_file}")
    return LabelMapPair(truth, prediction, tuple(float(step) for step in properties["spacing"]))


def read_label_map(file: Path, reader: BaseReaderWriter) -> tuple[np.ndarray, dict[str, Any]]:
    """(z, y, x) integers, and what the reader says about the geometry.

    Raises:
        NotComparableError: if the file cannot be read, has several channels or a unit that the reader ignores, or
            contains other values than whole numbers.
    """
    try:
        values, properties = reader.read_seg(str(file))
    except Exception as error:  # each reader raises errors of its own; the case is reported
        raise NotComparableError(f"{file} cannot be read as a label map: {in_words(error)}") from error
    require_readable_meaning(file, type(reader).__name__)
    values = np.asarray(values)
    if len(values) != 1:  # nnU-Net's readers put channels first
        raise NotComparableError(
            f"A label map must be one volume; {file} has {len(values)}. Is it 4D? Save the one with the labels."
        )
    return whole_numbers(values[0], file), properties


def require_readable_meaning(file: Path, reader: str) -> None:
    """Refuses a label map that the reader reads without an error, but as something else than it is.

    Raises:
        NotComparableError: if its voxels are vectors, or its spacing is in a unit that the reader ignores.
    """
    layers = numbers_per_voxel(file, reader)
    if layers > 1:
        raise NotComparableError(
            f"A label map must have one number for each voxel; {file} has {layers}: layers, as 3D Slicer saves "
            f"overlapping segments, or colours. Export the segmentation as a label map."
        )
    unit = ignored_unit(file, reader)
    if unit:
        raise NotComparableError(f"{file}: {unit}")


def whole_numbers(values: np.ndarray, file: Path) -> np.ndarray:
    """The values as integers, if they are whole but for rounding.

    Raises:
        NotComparableError: if they are not.
    """
    if np.issubdtype(values.dtype, np.integer):
        return values
    whole = np.rint(values)
    is_whole = np.abs(values - whole) <= LABEL_TOLERANCE  # False for NaN
    if not is_whole.all():
        raise NotComparableError(
            f"A label map must contain whole numbers; {file} contains {values[~is_whole].flat[0]}. Is it a "
            f"probability or an uncertainty map? If it is not, scl_slope in its header rounds the labels: save them "
            f"as integers."
        )
    return whole.astype(np.int32)


def require_same_geometry(truth: Mapping[str, Any], prediction: Mapping[str, Any], name: str) -> None:
    """Refuses grids that differ in spacing, origin or direction, as far as the format stores them."""
    for what, expected, found in zip(
        ("spacing", "origin", "direction", "affine"), geometry(truth), geometry(prediction), strict=True
    ):
        scale = min(np.abs(np.asarray(truth["spacing"], dtype=float)))
        tolerance = GEOMETRY_TOLERANCE * (1.0 if what == "direction" else scale)
        if expected.shape != found.shape or not np.allclose(expected, found, rtol=1e-5, atol=tolerance):
            raise NotComparableError(
                f"Prediction and truth must have the same geometry; {name} has the {what} {found.round(4).tolist()}, "
                f"its truth {expected.round(4).tolist()}. Resample one of them to the other's grid."
            )


def geometry(properties: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Spacing, origin, direction and affine; empty where the reader does not know one."""
    itk = properties.get("sitk_stuff", {})
    affine = properties.get("nibabel_stuff", {}).get("original_affine", ())
    values = (properties["spacing"], itk.get("origin", ()), itk.get("direction", ()), affine)
    spacing, origin, direction, matrix = (np.asarray(value, dtype=float) for value in values)
    return spacing, origin, direction, matrix


def require_labels(values: np.ndarray, known: Collection[int], owner: str) -> None:
    """Refuses a label map with labels that the dataset does not have."""
    unknown = sorted(set(np.unique(values).tolist()) - set(known))
    if unknown:
        raise NotComparableError(
            f"A label map may contain the labels {sorted(known)} of dataset.json; {owner} also contains "
            f"{', '.join(map(str, unknown))}. Is it from another dataset?"
        )
