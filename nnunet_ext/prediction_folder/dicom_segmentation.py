"""A segmentation as a DICOM object (SEG) that refers to the series it was made from; needs highdicom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_ext import __version__
from nnunet_ext.files.atomic import atomic_path
from nnunet_ext.labels import Region
from nnunet_ext.machine.extras import imported

NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
MANUFACTURER = "nnunet_ext"
SERIES_DESCRIPTION = "Segmentation by nnunet_ext"
SERIES_NUMBER = 900  # above those of scanners
# What a structure is nobody wrote down: its name is the label, and the codes of SNOMED CT say no more than is known.
_CATEGORY = ("123037004", "SCT", "Anatomical structure")
_TYPE = ("85756007", "SCT", "Tissue")


class DicomSegmentationError(ValueError):
    """A segmentation cannot be written as DICOM; the message says why."""


@dataclass(frozen=True)
class SegmentedSeries:
    """What a SEG is written of.

    Attributes:
        labels: file of the label map, on the grid of the series.
        sources: DICOM files of the series, in the order of the label map's slices.
        structures: name of every class or region to its labels, see `regions_of`.
        model: name of the ensemble, for the identification of the algorithm.
    """

    labels: Path
    sources: Sequence[Path]
    structures: Mapping[str, Region]
    model: str


def require_highdicom() -> tuple[ModuleType, ModuleType]:
    """highdicom and pydicom.

    Raises:
        ExtraMissingError: if one is not installed.
    """
    highdicom, pydicom = (imported(name, extra="dicom", needed_by="--dicom-seg") for name in ("highdicom", "pydicom"))
    return highdicom, pydicom


def write_dicom_segmentation(series: SegmentedSeries, file: Path) -> None:
    """Writes the SEG of a series, atomically: one binary segment for every structure, in the order of their names.

    Args:
        series: what to write.
        file: to write to.

    Raises:
        DicomSegmentationError: if the label map is not on the grid of the series, or the series lacks what a SEG
            needs.
        ExtraMissingError: if highdicom is not installed.
    """
    highdicom, pydicom = require_highdicom()
    sources = [pydicom.dcmread(path, stop_before_pixels=True) for path in series.sources]
    lacking = [name for name in NEEDED if not getattr(sources[0], name, "")]
    if lacking:
        raise DicomSegmentationError(
            f"A DICOM segmentation refers to its series; {sources[0].filename} has no {', '.join(lacking)}. Export "
            f"the series again from the archive, or use {series.labels.name}."
        )
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(series.labels)))  # (z, y, x)
    expected = (len(sources), sources[0].Rows, sources[0].Columns)
    if labels.shape != expected:
        raise DicomSegmentationError(
            f"A DICOM segmentation must have the grid of its series, {expected}; {series.labels.name} has "
            f"{labels.shape}. Predict the series again."
        )
    try:
        segmentation = highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=segment_masks(labels, list(series.structures.values())),
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_descriptions(highdicom, series),
            series_instance_uid=highdicom.UID(),
            series_number=SERIES_NUMBER,
            series_description=SERIES_DESCRIPTION,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=series.model[:64],  # the longest that DICOM allows
            software_versions=__version__,
            device_serial_number="0",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DicomSegmentationError(
            f"The series lacks what a DICOM segmentation needs ({type(error).__name__}: {error}). Export it again "
            f"from the archive, or use {series.labels.name}."
        ) from error
    with atomic_path(file) as temporary:
        segmentation.save_as(temporary)


def segment_masks(labels: NDArray, regions: Sequence[Region]) -> NDArray[np.uint8]:
    """(z, y, x, segments), 1 inside: a structure is where the label map has one of its labels."""
    return np.stack([np.isin(labels, region) for region in regions], axis=-1).astype(np.uint8)


def _descriptions(highdicom: Any, series: SegmentedSeries) -> list[Any]:
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=f"nnunet_ext, {series.model}"[:64],
        family=highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
        version=__version__,
    )
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=highdicom.sr.CodedConcept(*_CATEGORY),
            segmented_property_type=highdicom.sr.CodedConcept(*_TYPE),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, name in enumerate(series.structures, start=1)
    ]
