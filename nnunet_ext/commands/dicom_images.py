"""`predict -i FOLDER` where a channel is a folder with a DICOM series: `CASE_0000/` instead of `CASE_0000.nii.gz`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import SimpleITK as sitk
from tqdm import tqdm

from nnunet_ext.error_text import in_words
from nnunet_ext.files.listing import visible_files
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.inference.run import RunOutcome
from nnunet_ext.input_checks.dicom_series import is_dicom, series_image, series_slices
from nnunet_ext.input_checks.findings import Finding, UnreadableFile
from nnunet_ext.labels import regions_of
from nnunet_ext.options import PredictOptions
from nnunet_ext.prediction_folder.cases import find_cases
from nnunet_ext.prediction_folder.dicom_segmentation import (
    DicomSegmentationError,
    SegmentedSeries,
    require_highdicom,
    write_dicom_segmentation,
)

CHANNEL_FOLDER = re.compile(r"(.+)_\d{4}")
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
SEGMENTATION_ENDING = ".dcm"


@dataclass
class ConvertedSeries:
    """What became of the series of the cases.

    Attributes:
        sources: name of a case to the files of its first channel, in the order of the slices.
        refused: name of a case to what is wrong with its series.
    """

    sources: dict[str, list[Path]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def series_folders(images: Path) -> dict[str, list[Path]]:
    """The folders `CASE_0000/`, by case; empty if there is no DICOM file in any of them."""
    found: dict[str, list[Path]] = {}
    for folder in visible_files(images):
        match = CHANNEL_FOLDER.fullmatch(folder.name)
        if match and folder.is_dir():
            found.setdefault(match[1], []).append(folder)
    folders = [folder for channels in found.values() for folder in channels]
    return found if any(is_dicom(path) for folder in folders for path in visible_files(folder)) else {}


def predict_series(
    engine: EnsembleEngine, folders: Mapping[str, Sequence[Path]], options: PredictOptions, arguments: dict[str, Any]
) -> RunOutcome:
    """Predicts the cases of some series; the images that are made of them are kept until the end of the run.

    Args:
        engine: the ensemble.
        folders: see `series_folders`.
        options: of the prediction.
        arguments: to be recorded.

    Raises:
        ValueError: if there are image files beside the series, or the model takes other files than volumes; see also
            `EnsembleEngine.predict_from_files`.
        ExtraMissingError: if DICOM is to be written, and highdicom is not installed.
    """
    ending = engine.models[0].dataset_json["file_ending"]
    require_series_only(options.images, ending)
    if options.dicom_seg:
        require_highdicom()
    output = options.output
    own = sorted(folders)[output.part_id :: output.num_parts]
    with tempfile.TemporaryDirectory(prefix="nnunet_ext-") as name:
        images = Path(name)
        for case in folders:  # the engine divides the cases among the parts by their names
            for folder in folders[case]:
                (images / f"{folder.name}{ending}").touch()
        cases = {case: folders[case] for case in own}
        converted = convert(cases, images, ending, progress=options.ensemble.allow_tqdm)
        outcome = engine.predict_from_files(images, options.results, output, arguments=arguments)
    outcome.failed |= converted.refused
    if options.dicom_seg:
        write_segmentations(engine, converted.sources, options.results, outcome)
    return outcome


def require_series_only(images: Path, ending: str) -> None:
    """Refuses series for a model of pictures, and image files beside series.

    Raises:
        ValueError: if so.
    """
    if ending not in ENDINGS:
        raise ValueError(
            f"DICOM series are read as volumes, for a model that takes {', '.join(ENDINGS)}; this one takes {ending}."
        )
    try:
        beside = find_cases(images, ending)
    except FileNotFoundError:
        return
    raise ValueError(
        f"A folder of images holds DICOM series or files; found both, such as {beside[0].files[0].name}. Put them "
        f"into folders of their own, and predict twice."
    )


def convert(
    folders: Mapping[str, Sequence[Path]], images: Path, ending: str, *, progress: bool = False
) -> ConvertedSeries:
    """Writes the series of each case as `CASE_0000<ending>`; of a case with a bad one, the good ones."""
    converted = ConvertedSeries()
    for case, channels in tqdm(folders.items(), desc="DICOM", unit="case", disable=not progress):
        findings = []
        for number, folder in enumerate(channels):
            try:
                slices = series_slices(folder)
                sitk.WriteImage(series_image(slices), str(images / f"{folder.name}{ending}"))
                if number == 0:
                    converted.sources[case] = [each.path for each in slices]
            except UnreadableFile as error:
                findings.append(str(Finding(folder, error.found, error.expected, error.remedy)))
            except (OSError, RuntimeError, MemoryError) as error:  # of a disk; RuntimeError: SimpleITK's own
                findings.append(f"{folder}: {in_words(error)}")
        if findings:
            converted.refused[case] = "\n".join(findings)
    return converted


def write_segmentations(
    engine: EnsembleEngine, sources: Mapping[str, Sequence[Path]], results: Path, outcome: RunOutcome
) -> None:
    """Writes `CASE.dcm` for every case that is predicted and has none, or an older one; a failure is recorded."""
    first = engine.models[0]
    structures = regions_of(first.dataset_json)
    for case in (*outcome.predicted, *outcome.skipped):
        labels = results / f"{case}{first.dataset_json['file_ending']}"
        file = results / f"{case}{SEGMENTATION_ENDING}"
        if case not in sources or (file.is_file() and file.stat().st_mtime_ns >= labels.stat().st_mtime_ns):
            continue
        series = SegmentedSeries(labels, sources[case], structures, first.folder.name)
        try:
            write_dicom_segmentation(series, file)
        except (DicomSegmentationError, OSError) as error:
            file.unlink(missing_ok=True)
            outcome.failed[case] = f"The segmentation is there, but not as DICOM. {in_words(error)}"
            for names in (outcome.predicted, outcome.skipped):
                if case in names:
                    names.remove(case)
