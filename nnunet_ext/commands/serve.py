"""`nnunet_ext serve`: a model kept loaded behind a small HTTP interface."""

from __future__ import annotations

from functools import partial

from nnunet_ext.commands.predict import calibration_file, opened_calibration
from nnunet_ext.inference.engine import EnsembleEngine, device_of
from nnunet_ext.machine.devices import prepare_process_for
from nnunet_ext.models.named_folders import chosen_model_folders
from nnunet_ext.options import ServeOptions
from nnunet_ext.serving.case_predictor import EnginePredictor
from nnunet_ext.serving.http_server import run_server


def serve_model(options: ServeOptions) -> None:
    """Serves a model until it is interrupted.

    Raises:
        ServeExtraMissingError: if the packages of the extra are not installed.
        WorkerStartError: if the model cannot be loaded.
    """
    run_server(partial(loaded_predictor, options), options)


def loaded_predictor(options: ServeOptions) -> EnginePredictor:
    """The ensemble, loaded as `predict` loads it; called in the worker process.

    Raises:
        ValueError: if the model cannot be served, or options contradict each other; see also `EnsembleEngine`.
    """
    prepare_process_for(device_of(options.ensemble))
    folders = chosen_model_folders(options.model)
    calibration = None
    if options.calibration is not None:
        calibration = opened_calibration(calibration_file(options.calibration, folders))
    engine = EnsembleEngine.from_model_folders(folders, options.ensemble, calibration=calibration)
    return EnginePredictor(engine, options.output, options.limits.voxels)
