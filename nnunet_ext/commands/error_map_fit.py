"""What `nnunet_ext error-map fit` does: chooses the threshold of an error model on its cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nnunet_ext.calibration.held_out_cases import held_out_cases
from nnunet_ext.commands.error_map_dataset import one_model
from nnunet_ext.commands.held_out_folds import members_of_fold, predict_fold, require_disjoint, trained_folds
from nnunet_ext.commands.training_data import TrainingData
from nnunet_ext.error_maps.error_dataset import ERROR, IGNORED, made_from, source_splits
from nnunet_ext.error_maps.error_model import FILE_NAME, ErrorModel, ValidatedCase, fitted, validated_case
from nnunet_ext.evaluation.end_slices import stack_axis_of
from nnunet_ext.evaluation.label_maps import read_label_map
from nnunet_ext.files.writable import require_writable
from nnunet_ext.inference.engine import device_of
from nnunet_ext.machine.devices import prepare_process_for
from nnunet_ext.models.description import model_description
from nnunet_ext.options import ErrorFitOptions
from nnunet_ext.prediction_folder.case_files import CasePrediction


def fit_error_model(options: ErrorFitOptions) -> tuple[ErrorModel, Path]:
    """Predicts each fold's validation cases with that fold's members, and fits the threshold of the slices to them.

    Only segmentations of networks count, not their synthetic corruptions.

    Returns:
        What was fitted, and the file that it was saved to.

    Raises:
        TrainedOnError: if members would be tested on a case, on a corruption of it, or on a patient, that they were
            trained on.
        NotAnErrorModelError: if the model was trained on another dataset.
        CaseNotPredictedError: if a case could not be predicted.
    """
    prepare_process_for(device_of(options.ensemble))
    model = one_model(options.model)
    _, dataset_json = model_description(model)
    source = made_from(dataset_json, model)
    require_writable(model / FILE_NAME, "Make the model's folder writable.")
    data = TrainingData.open(model, None)
    folds = options.ensemble.fold_list or trained_folds(model, options.ensemble.members)
    splits = source_splits(data.splits)
    names = {fold: held_out_cases(fold, splits, [model / f"fold_{fold}"], source["patients"]) for fold in folds}
    require_disjoint(names)
    cases: list[ValidatedCase] = []
    members: list[list[str]] = []
    for fold, held_out in names.items():
        sink = ErrorCollector(data, str(fold), source["labels"])
        wanted = [data.case(name, None) for name in held_out]
        engine = members_of_fold(fold, [model], options.ensemble)
        predict_fold(engine, fold, wanted, sink)
        members += [[member.name, member.sha256] for member in engine.models[0].members]
        cases += sink.cases
    found = replace(
        fitted(cases, failure_dice=options.failure_dice, false_alarms=options.false_alarms),
        rule=options.ensemble.members,
        tta=options.ensemble.tta,
        members=members,
    )
    found.save(model / FILE_NAME)
    return found, model / FILE_NAME


@dataclass
class ErrorCollector:
    """Compares the error maps of a fold with the true errors."""

    data: TrainingData
    fold: str
    labels: Sequence[int]
    cases: list[ValidatedCase] = field(default_factory=list)

    def write(self, prediction: CasePrediction) -> None:
        """Compares one case."""
        description, files = self.data.description, self.data.files[prediction.case]
        errors, properties = read_label_map(Path(files["label"]), description.reader)
        masks, _ = description.reader.read_images([str(file) for file in files["images"][-len(self.labels) :]])
        known = errors != IGNORED
        axis = description.stack_axis
        self.cases.append(
            validated_case(
                prediction.case,
                self.fold,
                error=np.where(known, error_probability(prediction), 0),
                truth=errors == ERROR,
                foreground=(masks > 0).any(axis=0) & known,
                stack_axis=stack_axis_of(properties["spacing"]) if axis is None else axis,
            )
        )


def error_probability(prediction: CasePrediction) -> np.ndarray:
    """(z, y, x): the map of a predicted case.

    Raises:
        RuntimeError: if the case was predicted without probabilities.
    """
    if prediction.probabilities is None:
        raise RuntimeError(f"{prediction.case} was predicted without its probabilities.")
    return np.clip(prediction.probabilities[ERROR], 0, 1)
