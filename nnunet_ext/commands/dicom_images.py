"""`predict -i FOLDER` where a channel is a folder with a DICOM series: `CASE_0000/` instead of `CASE_0000.nii.gz`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_ext.commands.dicom_conversion import convert, require_series_only
from nnunet_ext.error_text import in_words
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.inference.run import RunOutcome
from nnunet_ext.labels import regions_of
from nnunet_ext.options import PredictOptions
from nnunet_ext.prediction_folder.dicom_segmentation import (
    DicomSegmentationError,
    SegmentedSeries,
    require_highdicom,
    write_dicom_segmentation,
)

SEGMENTATION_ENDING = ".dcm"


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
