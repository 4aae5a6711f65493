"""`nnunet_ext calibrate`: fits a calibration to predictions of held-out cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_ext.calibration.calibration_case import CalibrationCase, calibration_case
from nnunet_ext.calibration.fit import fit_calibration
from nnunet_ext.calibration.fit_checks import require_confidence, require_members_for, require_patients
from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.calibration.risk_control import require_alpha
from nnunet_ext.commands.held_out_folds import (
    held_out_by_fold,
    members_of_fold,
    patients_of,
    predict_fold,
    require_disjoint,
    trained_folds,
)
from nnunet_ext.commands.predict import calibration_file
from nnunet_ext.commands.training_data import TrainingData
from nnunet_ext.evaluation.label_maps import read_label_map
from nnunet_ext.files.writable import require_writable
from nnunet_ext.inference.engine import device_of
from nnunet_ext.machine.devices import prepare_process_for
from nnunet_ext.models.named_folders import chosen_model_folders
from nnunet_ext.options import CalibrateOptions
from nnunet_ext.patients import patient_of
from nnunet_ext.prediction_folder.agreement import require_agreement
from nnunet_ext.prediction_folder.case_files import CasePrediction


def calibrate_model(options: CalibrateOptions) -> tuple[Calibration, Path]:
    """Predicts each fold's validation cases with that fold's members, fits the calibration to them and saves it.

    Returns:
        The calibration, and the file that it was saved to.

    Raises:
        TrainedOnError: if members would be tested on a case, or on a patient, that they were trained on.
        CaseNotPredictedError: if a case could not be predicted.
        ValueError: if options contradict each other, there are too few cases, or the folder of a cascade's first
            stage contradicts itself.
    """
    require_confidence(options.fit.confidence)
    if options.previous_stage is not None:
        require_agreement(options.previous_stage)
    prepare_process_for(device_of(options.ensemble))
    folders = chosen_model_folders(options.model)
    file = calibration_file(options.file, folders)
    require_writable(file)
    folds: Sequence[int | str]
    folds = options.ensemble.fold_list or trained_folds(folders[0], options.ensemble.members)
    dataset = TrainingData.open(folders[0], options.splits)
    names_of_fold = held_out_by_fold(folds, folders, dataset.splits, options.patients)
    require_disjoint(names_of_fold)
    patients = require_patients("Calibration", patients_of(names_of_fold, options.patients))
    if options.fit.miss_rate is not None:
        require_alpha(options.fit.miss_rate, patients)
    cases_of_fold = {
        fold: [dataset.case(name, options.previous_stage) for name in names] for fold, names in names_of_fold.items()
    }
    collected: list[CalibrationCase] = []
    members: list[dict[str, Any]] = []
    settings: Mapping[str, Any] = {}
    for fold, cases in cases_of_fold.items():
        sink = CaseCollector(dataset, str(fold), options.patients)
        engine = members_of_fold(fold, folders, options.ensemble, options.previous_stage)
        require_members_for(options.fit.confidence, engine.passes_per_case)
        predict_fold(engine, fold, cases, sink)
        settings = engine.settings
        members += [member.record() for model in engine.models for member in model.members]
        collected += sink.cases
    calibration = fit_calibration(
        collected,
        options.fit,
        regions=dataset.description.regions,
        settings=settings,
        fitted_on={
            "folds": [str(fold) for fold in folds],
            "members": [{key: member[key] for key in ("name", "sha256")} for member in members],
        },
    )
    calibration.save(file)
    return calibration, file


@dataclass
class CaseCollector:
    """Takes predicted cases and keeps what calibration needs of them."""

    data: TrainingData
    fold: str
    patients: str | None
    cases: list[CalibrationCase] = field(default_factory=list)

    def write(self, prediction: CasePrediction) -> None:
        """Compares one case with its ground truth."""
        dataset = self.data.description
        truth, _ = read_label_map(Path(self.data.files[prediction.case]["label"]), dataset.reader)
        patient = patient_of(prediction.case, self.patients)
        self.cases.append(calibration_case(prediction, truth, self.data.scheme(), patient=patient, fold=self.fold))
