"""`nnunet_ext serve`: a model kept loaded behind a small HTTP interface."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from nnunet_ext.options import ServeOptions
from nnunet_ext.serving.http_server import run_server

if TYPE_CHECKING:
    from nnunet_ext.serving.case_predictor import EnginePredictor


def serve_model(options: ServeOptions, loaded: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Serves a model until it is interrupted.

    Args:
        options: which model, where to listen, and the limits.
        loaded: called with the description of the model when it is loaded, just before the server listens.

    Raises:
        ExtraMissingError: if the packages of the extra are not installed.
        WorkerStartError: if the model cannot be loaded.
    """
    run_server(partial(loaded_predictor, options), options, loaded)


def loaded_predictor(options: ServeOptions) -> EnginePredictor:
    """The ensemble, loaded as `predict` loads it. Called in the worker process, the only one that imports torch.

    Raises:
        ValueError: if the model cannot be served, or options contradict each other; see also `EnsembleEngine`.
    """
    from nnunet_ext.commands.predict import calibration_file, opened_calibration
    from nnunet_ext.inference.engine import EnsembleEngine, device_of
    from nnunet_ext.machine.devices import prepare_process_for
    from nnunet_ext.models.named_folders import chosen_model_folders
    from nnunet_ext.serving.case_predictor import EnginePredictor

    prepare_process_for(device_of(options.ensemble))
    folders = chosen_model_folders(options.model)
    calibration = None
    if options.calibration is not None:
        calibration = opened_calibration(calibration_file(options.calibration, folders))
    engine = EnsembleEngine.from_model_folders(folders, options.ensemble, calibration=calibration)
    return EnginePredictor(engine, options.output, options.limits.voxels)
