"""What `nnunet_ext calibrate` does with its flags."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_ext.calibration.calibration_case import CalibrationCase, calibration_case
from nnunet_ext.calibration.fit import fit_calibration, require_confidence
from nnunet_ext.calibration.held_out_cases import held_out_cases, read_splits
from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.commands.predict import (
    calibration_file,
    chosen_folds,
    ensemble_options,
    model_folders,
    prepare_process_for,
)
from nnunet_ext.evaluation.folder import Dataset, open_dataset
from nnunet_ext.evaluation.label_maps import read_label_map
from nnunet_ext.evaluation.patients import patient_of
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.labels import LabelScheme
from nnunet_ext.models.members import MemberRule, folders_with_members
from nnunet_ext.options import FitOptions
from nnunet_ext.prediction_folder.case_files import CasePrediction
from nnunet_ext.prediction_folder.cases import Case

SPLITS = "splits_final.json"


class CalibrationFailedError(RuntimeError):
    """Cases that could not be predicted: a calibration without them would hide it."""


def calibrate_model(arguments: argparse.Namespace) -> tuple[Calibration, Path]:
    """Predicts every fold's validation cases with that fold's members, fits to them, and saves what was fitted.

    Args:
        arguments: the flags of `nnunet_ext calibrate`.

    Returns:
        The calibration and the file that it was saved to.

    Raises:
        TrainedOnError: if a case was trained on by the members that would judge it.
        CalibrationFailedError: if a case could not be predicted.
        ValueError: if flags contradict each other, or there are too few cases.
    """
    fit = fit_options(arguments)
    require_confidence(fit.confidence)
    prepare_process_for(arguments.device)
    folders = model_folders(arguments)
    file = calibration_file(arguments.o, folders)
    options = ensemble_options(arguments, folders)
    folds = chosen_folds(arguments.f) or trained_folds(folders[0], options["members"])
    dataset = TrainingData.open(folders[0], arguments.splits)
    cases_of_fold = {}
    for fold in folds:
        names = held_out_cases(fold, dataset.splits, [folder / f"fold_{fold}" for folder in folders])
        cases_of_fold[fold] = [dataset.case(name, arguments.prev_stage_predictions) for name in names]
        for name in names:
            patient_of(name, arguments.patients)  # a pattern that does not fit is refused before hours of prediction
    collected: list[CalibrationCase] = []
    members: list[dict[str, Any]] = []
    settings: Mapping[str, Any] = {}
    for fold, cases in cases_of_fold.items():
        predictor = EnsembleEngine.from_model_folders(folders, folds=[fold], **options)
        settings = predictor.settings
        members += [member.record() for model in predictor.models for member in model.members]
        sink = CaseCollector(dataset, str(fold), arguments.patients)
        report = predictor.predict_cases(cases, sink, maps=(), save_probabilities=True)
        if report.failed:
            raise CalibrationFailedError(
                f"Every validation case must be predicted; {len(report.failed)} of fold {fold} failed: "
                + "; ".join(f"{name}: {message}" for name, message in report.failed.items())
            )
        collected += sink.cases
    calibration = fit_calibration(
        collected,
        fit,
        regions=dataset.description.regions,
        settings=settings,
        fitted_on={
            "folds": [str(fold) for fold in folds],
            "members": [{key: member[key] for key in ("name", "sha256")} for member in members],
        },
    )
    calibration.save(file)
    return calibration, file


def fit_options(arguments: argparse.Namespace) -> FitOptions:
    """The flags that decide what is fitted."""
    return FitOptions(
        temperature=arguments.temperature,
        confidence=arguments.confidence,
        failure_dice=arguments.failure_dice,
        recall=arguments.recall,
        level=arguments.level,
        miss_rate=arguments.miss_rate,
    )


def trained_folds(folder: Path, members: str) -> list[str]:
    """The folds of a model folder that have members."""
    folders = folders_with_members(folder, MemberRule.parse(members))
    return [path.name.removeprefix("fold_") for path in folders]


@dataclass(frozen=True)
class TrainingData:
    """The training cases of a model's dataset.

    Attributes:
        description: of the dataset.
        files: case to its "images" and "label".
        splits: one entry a fold.
        ending: of the files.
    """

    description: Dataset
    files: Mapping[str, Mapping[str, Any]]
    splits: Sequence[Mapping[str, Sequence[str]]]
    ending: str

    @classmethod
    def open(cls, model_folder: Path, splits_file: str | None) -> TrainingData:
        """Finds the dataset that a model was trained on in nnU-Net's folders.

        Raises:
            FileNotFoundError: if images or splits are not there.
            ValueError: if nnU-Net's variables are not set.
        """
        plans, dataset_json = (read_json(model_folder / name) for name in ("plans.json", "dataset.json"))
        name = plans["dataset_name"]
        raw = variable_folder("nnUNet_raw") / name
        if not raw.is_dir():
            raise FileNotFoundError(
                f"Calibration needs the images that the model was trained with; {raw} does not exist. Set nnUNet_raw "
                f"to the folder that holds {name}."
            )
        files = get_filenames_of_train_images_and_targets(str(raw), dataset_json)
        splits = Path(splits_file) if splits_file else variable_folder("nnUNet_preprocessed") / name / SPLITS
        example = Path(next(iter(files.values()))["label"])
        return cls(
            open_dataset(dataset_json, plans, example), files, read_splits(splits), dataset_json["file_ending"]
        )

    def case(self, name: str, previous_stage_folder: str | None) -> Case:
        """A case under the name that the splits have for it.

        Raises:
            ValueError: if the dataset has no such case.
        """
        if name not in self.files:
            raise ValueError(
                f"The splits must name cases of the dataset; it has no {name}. Give the training's with --splits."
            )
        previous = Path(previous_stage_folder) / f"{name}{self.ending}" if previous_stage_folder else None
        return Case(name, tuple(Path(file) for file in self.files[name]["images"]), previous)


def read_json(file: Path) -> dict[str, Any]:
    """The content of a file of a model folder.

    Raises:
        FileNotFoundError: if it does not exist.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"A model folder must hold {file.name}; {file} does not exist. Check -m, or -d and -c."
        )
    return json.loads(file.read_text(encoding="utf-8"))


def variable_folder(name: str) -> Path:
    """The folder of one of nnU-Net's environment variables.

    Raises:
        ValueError: if it is not set.
    """
    value = os.environ.get(name)
    if not value:
        raise ValueError(f"Calibration reads the training cases, so {name} must be set; it is not. Export it first.")
    return Path(value)


@dataclass
class CaseCollector:
    """Takes predicted cases and keeps what calibration needs of them."""

    data: TrainingData
    fold: str
    patients: str | None
    cases: list[CalibrationCase] = field(default_factory=list)

    def write(self, prediction: CasePrediction) -> None:
        """Compares one case with its truth."""
        dataset = self.data.description
        truth, _ = read_label_map(Path(self.data.files[prediction.case]["label"]), dataset.reader)
        scheme = LabelScheme(dataset.structures, dataset.regions, dataset.ignore_label)
        patient = patient_of(prediction.case, self.patients)
        self.cases.append(calibration_case(prediction, truth, scheme, patient=patient, fold=self.fold))
