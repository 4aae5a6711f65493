"""`nnunet_ext weights`: fits class-wise weights of several models to their predictions of held-out cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_ext.calibration.ensemble_case import EnsembleCase, ensemble_case
from nnunet_ext.calibration.ensemble_weights import SETTINGS, EnsembleWeights
from nnunet_ext.calibration.fit_checks import require_patients
from nnunet_ext.calibration.fit_weights import WeightedEnsemble, fit_ensemble_weights
from nnunet_ext.calibration.held_out_cases import TrainedOnError, held_out_cases
from nnunet_ext.commands.held_out_folds import (
    PROBABILITIES,
    folds_of_all,
    folds_text,
    member_hashes,
    patients_of,
    require_all_predicted,
    require_disjoint,
    warn_of_unknown_patients,
)
from nnunet_ext.commands.training_data import TrainingData
from nnunet_ext.evaluation.label_maps import read_label_map
from nnunet_ext.files.writable import require_writable
from nnunet_ext.inference.accumulation.case_frame import PreparedCase
from nnunet_ext.inference.engine import EnsembleEngine, device_of
from nnunet_ext.inference.preparation import prepare_case
from nnunet_ext.inference.run import Pace, RunOutcome, progress_logger, run_cases
from nnunet_ext.machine.devices import prepare_process_for
from nnunet_ext.models.model import require_previous_stage, require_same_labels
from nnunet_ext.models.named_folders import absolute_folders
from nnunet_ext.options import WeightsOptions
from nnunet_ext.patients import patient_of
from nnunet_ext.prediction_folder.agreement import require_agreement
from nnunet_ext.prediction_folder.case_files import CasePrediction
from nnunet_ext.prediction_folder.cases import Case


def fit_weights(options: WeightsOptions) -> EnsembleWeights:
    """Predicts each fold's validation cases with that fold's members of every model, fits the weights and saves them.

    Raises:
        TrainedOnError: if members would be tested on a case, or on a patient, that they were trained on.
        CaseNotPredictedError: if a case could not be predicted.
        ValueError: if options contradict each other, models do not segment the same, or there are too few cases.
    """
    if options.previous_stage is not None:
        require_agreement(options.previous_stage)
    require_writable(options.file)
    prepare_process_for(device_of(options.ensemble))
    options = replace(options, folders=tuple(absolute_folders(options.folders)))
    folds = options.ensemble.fold_list or common_folds(options.folders, options.ensemble.members)
    datasets = [TrainingData.open(folder, options.splits) for folder in options.folders]
    cases_of_fold = {fold: cases_held_out_by_all(fold, datasets, options) for fold in folds}
    require_disjoint(cases_of_fold)
    require_patients("The fit of weights", patients_of(cases_of_fold, options.patients))
    if options.patients is None:
        warn_of_unknown_patients(datasets[0].splits)
    predicted = [
        predicted_fold(fold, [datasets[0].case(name, options.previous_stage) for name in names], datasets[0], options)
        for fold, names in cases_of_fold.items()
    ]
    scheme = datasets[0].scheme()
    ensemble = WeightedEnsemble(
        models=tuple(folder.name for folder in options.folders),
        outputs=tuple(scheme.outputs()),
        regions=scheme.regions,
        settings=predicted[0].settings,
        fitted_on={
            "folds": [str(fold) for fold in folds],
            "members": [member for one in predicted for member in one.members],
        },
    )
    cases = [case for one in predicted for case in one.cases]
    weights = fit_ensemble_weights(cases, ensemble, pull=options.pull, best=options.best)
    weights.save(options.file)
    return weights


def common_folds(folders: Sequence[Path], members: str) -> list[str]:
    """The folds that have members in every model folder.

    Raises:
        ValueError: if there is none.
    """
    common = folds_of_all(folders, members)
    if not common:
        raise ValueError(
            f"Weights are fitted to folds that all models have; found {folds_text(folders, members)}. Train one fold "
            f"with every model."
        )
    return common


def cases_held_out_by_all(fold: int | str, datasets: Sequence[TrainingData], options: WeightsOptions) -> list[str]:
    """The validation cases of a fold, by name, after a look that no model was trained on one of them.

    Raises:
        TrainedOnError: see `held_out_cases`; also if the models do not hold out the same cases.
        ValueError: see `held_out_cases`; also if the dataset of the first model lacks a case.
    """
    held_out = [
        held_out_cases(fold, data.splits, [folder / f"fold_{fold}"], options.patients)
        for data, folder in zip(datasets, options.folders, strict=True)
    ]
    for names, folder in zip(held_out, options.folders, strict=True):
        others = sorted(set(names) ^ set(held_out[0]))
        if others:
            raise TrainedOnError(
                f"All models must hold out the same cases in a fold; in fold {fold} {options.folders[0].name} and "
                f"{folder.name} differ in {len(others)}, such as {others[0]}. Train them with the same splits."
            )
    for name in held_out[0]:
        datasets[0].case(name, options.previous_stage)
    return held_out[0]


@dataclass(frozen=True)
class PredictedFold:
    """The held-out cases of a fold, predicted by its members.

    Attributes:
        cases: what is kept of them.
        members: model, name and SHA-256 of each member.
        settings: those of `SETTINGS` that the ensemble has.
    """

    cases: Sequence[EnsembleCase]
    members: Sequence[Mapping[str, str]]
    settings: Mapping[str, Any]


def predicted_fold(
    fold: int | str, cases: Sequence[Case], dataset: TrainingData, options: WeightsOptions
) -> PredictedFold:
    """Predicts cases with the members that each model has in a fold.

    Raises:
        CaseNotPredictedError: if a case could not be predicted.
        MemberError: if the models do not segment the same labels.
        ValueError: if a model is the second stage of a cascade and there is no first one.
    """
    engines = [
        EnsembleEngine.from_model_folders(folder, options.ensemble, folds=[fold]) for folder in options.folders
    ]
    models = [model for engine in engines for model in engine.models]
    require_same_labels(models)
    require_previous_stage(options.previous_stage, models)
    progress_logger.info("fold %s: %d held-out cases", fold, len(cases))
    sink = EnsembleCaseCollector(dataset, str(fold), options.patients)
    outcome = predict_side_by_side(engines, cases, sink)
    require_all_predicted(outcome, fold)
    return PredictedFold(
        cases=sink.cases,
        members=member_hashes(models),
        settings={name: value for name, value in engines[0].settings.items() if name in SETTINGS},
    )


def predict_side_by_side(
    engines: Sequence[EnsembleEngine], cases: Sequence[Case], sink: EnsembleCaseCollector
) -> RunOutcome:
    """Predicts cases with each of several models, and passes the probabilities of all to the sink.

    Args:
        engines: one per model.
        cases: the cases.
        sink: gets each case with the probabilities (K, C, *spatial) in half precision, of every model.
    """

    models = [model for engine in engines for model in engine.models]

    def prepare(case: Case) -> list[PreparedCase]:
        return prepare_case(case, models, engines[0].options)

    def predict(case: Case, prepared: list[PreparedCase], progress: tqdm) -> CasePrediction:
        first = engines[0].predict_case(case.name, prepared[:1], PROBABILITIES, progress)
        of_models = [probabilities_of(first)]
        for engine, one in zip(engines[1:], prepared[1:], strict=True):
            of_models.append(probabilities_of(engine.predict_case(case.name, [one], PROBABILITIES, progress)))
        return replace(first, probabilities=np.stack(of_models))

    pace = Pace(
        passes_per_case=sum(engine.passes_per_case for engine in engines),
        write_behind=False,  # the volumes of all models are large
        show_progress=engines[0].options.allow_tqdm,
    )
    return run_cases(cases, prepare, predict, sink, pace)


def probabilities_of(prediction: CasePrediction) -> np.ndarray:
    """The probabilities (C, *spatial) of a prediction, in half precision.

    Raises:
        ValueError: if it has none.
    """
    if prediction.probabilities is None:
        raise ValueError(f"Weights need the probabilities of every case; {prediction.case} has none.")
    return prediction.probabilities.astype(np.float16)


@dataclass
class EnsembleCaseCollector:
    """Takes cases that every model predicted, and keeps what the fit of the weights needs of them."""

    data: TrainingData
    fold: str
    patients: str | None
    cases: list[EnsembleCase] = field(default_factory=list)

    def write(self, prediction: CasePrediction) -> None:
        """Compares one case, with probabilities (K, C, *spatial), with its ground truth."""
        truth, _ = read_label_map(Path(self.data.files[prediction.case]["label"]), self.data.description.reader)
        patient = patient_of(prediction.case, self.patients)
        if prediction.probabilities is not None:
            self.cases.append(
                ensemble_case(
                    prediction.case,
                    prediction.probabilities,
                    truth,
                    self.data.scheme(),
                    patient=patient,
                    fold=self.fold,
                )
            )
