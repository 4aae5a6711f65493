"""`nnunet_ext predict`: predicts the images of a folder with an ensemble."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from nnunet_ext.calibration.doubts import doubts
from nnunet_ext.calibration.model_calibration import FILE_NAME, Calibration
from nnunet_ext.cluster.case_worker import WorkerPlan
from nnunet_ext.cluster.ray_cluster import connected, machines_of, shares_of
from nnunet_ext.cluster.ray_prediction import predict_on_workers
from nnunet_ext.commands.dicom_images import predict_series
from nnunet_ext.commands.image_remarks import image_remarks
from nnunet_ext.inference.engine import EnsembleEngine, device_of
from nnunet_ext.inference.folder_run import PredictCases
from nnunet_ext.inference.run import RunOutcome
from nnunet_ext.input_checks.dicom_series import series_folders
from nnunet_ext.machine.devices import prepare_process_for
from nnunet_ext.machine.extras import imported
from nnunet_ext.models.named_folders import chosen_model_folders
from nnunet_ext.options import ClusterOptions, PredictOptions, recorded
from nnunet_ext.prediction_folder.cases import find_cases

logger = logging.getLogger(__name__)


def predict_folder(options: PredictOptions) -> RunOutcome:
    """Predicts the images of a folder.

    Raises:
        ValueError: if options contradict each other; see also `EnsembleEngine`.
    """
    folders = chosen_model_folders(options.model)
    calibration = None
    if options.calibration is not None:
        calibration = opened_calibration(calibration_file(options.calibration, folders))
    if options.cluster is not None:
        return predict_on_ray(options, options.cluster, folders, calibration)
    prepare_process_for(device_of(options.ensemble))
    engine = EnsembleEngine.from_model_folders(folders, options.ensemble, calibration=calibration)
    return predict_with(engine, options, str(engine.device))


def predict_on_ray(
    options: PredictOptions, cluster: ClusterOptions, folders: Sequence[Path], calibration: Calibration | None
) -> RunOutcome:
    """Predicts the images with workers of a Ray cluster; this process hands out the cases and keeps the table.

    Raises:
        ValueError: if the images are DICOM series.
        ExtraMissingError: if Ray is not installed.
        ClusterError: if there is no such cluster, or none of its workers can load the models.
    """
    if series_folders(options.images):
        raise ValueError(
            f"Workers of a cluster read image files; {options.images} holds DICOM series, which are converted on one "
            f"machine. Leave out --cluster."
        )
    ray = imported("ray", extra="ray", needed_by="--cluster ray")
    here = replace(options.ensemble, device="cpu", runtime="torch", precision=None)  # describes the ensemble only
    engine = EnsembleEngine.from_model_folders(folders, here, calibration=calibration)
    weights, steps = options.ensemble.class_weights, options.ensemble.postprocess
    plan = WorkerPlan(
        folders=[folder.absolute() for folder in folders],
        ensemble=replace(
            options.ensemble,
            class_weights=None if weights is None else weights.absolute(),
            postprocess=steps.absolute() if isinstance(steps, Path) else steps,
        ),
        output=options.output,
        results=options.results.absolute(),
        calibration=calibration,
    )
    with connected(ray, cluster):
        device = options.ensemble.device
        shares = shares_of(machines_of(ray), None if device is None else str(device), cluster.cores)
        logging.getLogger("nnunet_ext.cost").info("Ray cluster: %s", shares.words)
        predict_cases = predict_on_workers(ray, plan, shares)
        return predict_with(engine, options, shares.device, predict_cases)


def predict_with(
    engine: EnsembleEngine, options: PredictOptions, device: str, predict_cases: PredictCases | None = None
) -> RunOutcome:
    """Predicts the images with a loaded ensemble.

    Args:
        engine: the ensemble.
        options: options of the command.
        device: where its networks run, for the record.
        predict_cases: predicts the cases elsewhere; None with this engine.

    Raises:
        ValueError, OSError, RuntimeError: see `EnsembleEngine.predict_from_files`.
    """
    arguments = recorded(options) | {"device": device}
    if series := series_folders(options.images):
        return predict_series(engine, series, options, arguments)
    if options.dicom_seg:
        raise ValueError(
            f"--dicom-seg needs the DICOM series of the cases, in folders CASE_0000; {options.images} holds none."
        )
    first = engine.models[0]
    warn_of_images(options.images, first.dataset_json["file_ending"], first.plans.plans["image_reader_writer"])
    return engine.predict_from_files(
        options.images, options.results, options.output, arguments=arguments, predict_cases=predict_cases
    )


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
