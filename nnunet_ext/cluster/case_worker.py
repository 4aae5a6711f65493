"""What runs on another machine: one ensemble, kept loaded, that predicts one case after the other."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.inference.accumulation.case_frame import PreparedCase
from nnunet_ext.inference.engine import EnsembleEngine, device_of
from nnunet_ext.inference.run import Pace, RunOutcome, run_cases
from nnunet_ext.machine.devices import prepare_process_for
from nnunet_ext.options import EnsembleOptions, OutputOptions
from nnunet_ext.prediction_folder.case_files import CasePrediction, ImageFormat, write_case
from nnunet_ext.prediction_folder.cases import Case

ONE_CASE = Pace(passes_per_case=1, prepare_ahead=False, write_behind=False, show_progress=False)


@dataclass(frozen=True)
class WorkerPlan:
    """What every worker is made from; it is sent to other machines.

    Attributes:
        folders: model folders, which every machine sees.
        ensemble: how their members are combined.
        output: what is written for each case.
        results: output folder, which every machine sees.
        calibration: of the ensemble; None without.
        cores: CPU cores of the worker.
    """

    folders: Sequence[Path]
    ensemble: EnsembleOptions
    output: OutputOptions
    results: Path
    calibration: Calibration | None = None
    cores: int = 1


class CaseWorker:
    """Predicts cases and writes their files; the table is the driver's.

    Two calls at a time are useful: one case is prepared or written while the networks run over the other.

    Args:
        plan: what it is made from. The models are loaded by `load`, so that an error arrives as a message.
    """

    def __init__(self, plan: WorkerPlan) -> None:
        self.plan = plan
        self._networks = threading.Lock()
        self._engine: EnsembleEngine

    def load(self) -> tuple[int, str]:
        """Loads the models; returns process id and machine, for the log.

        Raises:
            ValueError, OSError, RuntimeError: see `EnsembleEngine`.
        """
        plan = self.plan
        prepare_process_for(device_of(plan.ensemble), plan.cores)
        self._engine = EnsembleEngine.from_model_folders(plan.folders, plan.ensemble, calibration=plan.calibration)
        return os.getpid(), socket.gethostname()

    def predict(self, case: Case) -> RunOutcome:
        """Predicts and writes one case; an error is recorded in the outcome, as in one process."""
        return run_cases([case], self._engine.prepare, self._predict, self, ONE_CASE)

    def write(self, prediction: CasePrediction) -> None:
        """Writes the files of a case."""
        first = self._engine.models[0]
        image_format = ImageFormat(first.dataset_json["file_ending"], first.plans.image_reader_writer_class())
        write_case(prediction, self.plan.results, image_format, RowsOfTheDriver(), self.plan.output.map_type)

    def _predict(self, case: Case, prepared: list[PreparedCase], progress: tqdm) -> CasePrediction:
        with self._networks:
            if self._engine.device.type == "cpu":
                torch.set_num_threads(self.plan.cores)  # Ray calls from threads, each of which counts its own
            return self._engine.predict_case(case.name, prepared, self.plan.output, progress)


class RowsOfTheDriver:
    """Keeps no rows: the driver gets each with the outcome of its case."""

    def add(self, row: Mapping[str, object]) -> None:
        """Nothing to do."""

    def discard(self, case: str) -> None:
        """Nothing to do."""
