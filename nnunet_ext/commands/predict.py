"""`nnunet_ext predict`: predicts the images of a folder with an ensemble."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from nnunet_ext.calibration.doubts import doubts
from nnunet_ext.calibration.model_calibration import FILE_NAME, Calibration
from nnunet_ext.commands.dicom_images import predict_series, series_folders
from nnunet_ext.commands.image_remarks import image_remarks
from nnunet_ext.inference.engine import EnsembleEngine, device_of
from nnunet_ext.inference.run import RunOutcome
from nnunet_ext.machine.devices import prepare_process_for
from nnunet_ext.models.named_folders import chosen_model_folders
from nnunet_ext.options import PredictOptions, recorded
from nnunet_ext.prediction_folder.cases import find_cases

logger = logging.getLogger(__name__)


def predict_folder(options: PredictOptions) -> RunOutcome:
    """Predicts the images of a folder.

    Raises:
        ValueError: if options contradict each other; see also `EnsembleEngine`.
    """
    prepare_process_for(device_of(options.ensemble))
    folders = chosen_model_folders(options.model)
    calibration = None
    if options.calibration is not None:
        calibration = opened_calibration(calibration_file(options.calibration, folders))
    engine = EnsembleEngine.from_model_folders(folders, options.ensemble, calibration=calibration)
    arguments = recorded(options) | {"device": str(engine.device), "i": str(options.images.absolute())}
    if series := series_folders(options.images):
        return predict_series(engine, series, options, arguments)
    if options.dicom_seg:
        raise ValueError(
            f"--dicom-seg needs the DICOM series of the cases, in folders CASE_0000; {options.images} holds none."
        )
    first = engine.models[0]
    warn_of_images(options.images, first.dataset_json["file_ending"], first.plans.plans["image_reader_writer"])
    return engine.predict_from_files(options.images, options.results, options.output, arguments=arguments)


def warn_of_images(folder: Path, file_ending: str, reader: str) -> None:
    """Warns of images that will not be predicted because of their names, and of stacks whose spacing is not known."""
    for line in image_remarks(folder, find_cases(folder, file_ending), file_ending, reader):
        logger.warning("%s: %s", folder, line)


def calibration_file(chosen: Path | Literal[True] | None, folders: Sequence[Path]) -> Path:
    """The file of a calibration: the chosen one, or `calibration.json` in the one model folder.

    Raises:
        ValueError: if there are several model folders and no file was chosen.
    """
    if isinstance(chosen, Path):
        return chosen
    if len(folders) > 1:
        raise ValueError(
            f"The calibration of several model folders needs a file name; found {len(folders)} "
            f"folders and no file. Give one: calibrate -o FILE.json, then predict --calibrated FILE.json."
        )
    return folders[0] / FILE_NAME


def opened_calibration(file: Path) -> Calibration:
    """A calibration, with a warning for each reason not to rely on it, as `calibrate` gave.

    Raises:
        CalibrationError: if there is no such file, or it holds something else.
    """
    calibration = Calibration.load(file)
    for doubt in doubts(calibration):
        logger.warning("%s: %s", file, doubt)
    return calibration
