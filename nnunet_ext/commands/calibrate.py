"""`nnunet_ext calibrate`: fits a calibration to predictions of held-out cases."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_ext.calibration.calibration_case import CalibrationCase, calibration_case
from nnunet_ext.calibration.fit import fit_calibration, require_confidence
from nnunet_ext.calibration.held_out_cases import held_out_cases
from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.commands.predict import calibration_file
from nnunet_ext.commands.training_cases import splits_file, training_files
from nnunet_ext.evaluation.folder import Dataset, open_dataset
from nnunet_ext.evaluation.label_maps import read_label_map
from nnunet_ext.inference.engine import EnsembleEngine, device_of
from nnunet_ext.inference.run import progress_logger
from nnunet_ext.labels import LabelScheme
from nnunet_ext.machine.devices import prepare_process_for
from nnunet_ext.models.description import model_description
from nnunet_ext.models.members import MemberRule, folders_with_members
from nnunet_ext.models.named_folders import chosen_model_folders
from nnunet_ext.options import CalibrateOptions, OutputOptions
from nnunet_ext.patients import PATTERN_OF_SUCH_NAMES, cases_of_one_name, patient_of
from nnunet_ext.prediction_folder.agreement import require_agreement
from nnunet_ext.prediction_folder.case_files import CasePrediction
from nnunet_ext.prediction_folder.cases import Case
from nnunet_ext.splits import Split, read_splits

logger = logging.getLogger(__name__)


class CalibrationFailedError(RuntimeError):
    """A case could not be predicted; a calibration without it would hide that."""


def calibrate_model(options: CalibrateOptions) -> tuple[Calibration, Path]:
    """Predicts each fold's validation cases with that fold's members, fits the calibration to them and saves it.

    Returns:
        The calibration, and the file that it was saved to.

    Raises:
        TrainedOnError: if members would be tested on a case, or on a patient, that they were trained on.
        CalibrationFailedError: if a case could not be predicted.
        ValueError: if options contradict each other, there are too few cases, or the folder of a cascade's first
            stage contradicts itself.
    """
    require_confidence(options.fit.confidence)
    if options.previous_stage is not None:
        require_agreement(options.previous_stage)
    prepare_process_for(device_of(options.ensemble))
    folders = chosen_model_folders(options.model)
    file = calibration_file(options.file, folders)
    folds: Sequence[int | str]
    folds = options.ensemble.fold_list or trained_folds(folders[0], options.ensemble.members)
    dataset = TrainingData.open(folders[0], options.splits)
    cases_of_fold = {}
    for fold in folds:
        fold_folders = [folder / f"fold_{fold}" for folder in folders]
        names = held_out_cases(fold, dataset.splits, fold_folders, options.patients)
        cases_of_fold[fold] = [dataset.case(name, options.previous_stage) for name in names]
    if options.patients is None:
        warn_of_unknown_patients(dataset.splits)
    collected: list[CalibrationCase] = []
    members: list[dict[str, Any]] = []
    settings: Mapping[str, Any] = {}
    for fold, cases in cases_of_fold.items():
        engine = EnsembleEngine.from_model_folders(folders, options.ensemble, folds=[fold])
        settings = engine.settings
        progress_logger.info("fold %s: %d held-out cases", fold, len(cases))
        members += [member.record() for model in engine.models for member in model.members]
        sink = CaseCollector(dataset, str(fold), options.patients)
        outcome = engine.predict_cases(cases, sink, OutputOptions(maps=(), save_probabilities=True))
        if outcome.failed:
            raise CalibrationFailedError(
                f"Every validation case must be predicted; {len(outcome.failed)} of fold {fold} failed: "
                + "; ".join(f"{name}: {message}" for name, message in outcome.failed.items())
            )
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


def warn_of_unknown_patients(splits: Sequence[Split]) -> None:
    """Warns if names look as if several cases belonged to one patient; that may be wrong, so nothing is refused."""
    found = cases_of_one_name(case for split in splits for side in ("train", "val") for case in split[side])
    if found:
        first, second, *_ = next(iter(found.values()))
        logger.warning(
            "Without --patients each case counts as its own patient; some names look otherwise, such as "
            "%s and %s. If they are of one patient, members may be tested on patients that they were trained on, and "
            "all intervals are too narrow: give --patients '%s', or another pattern for the patient's name.",
            first,
            second,
            PATTERN_OF_SUCH_NAMES,
        )


def trained_folds(folder: Path, members: str) -> list[str]:
    """The folds of a model folder that have members."""
    folders = folders_with_members(folder, MemberRule.parse(members))
    return [path.name.removeprefix("fold_") for path in folders]


@dataclass(frozen=True)
class TrainingData:
    """The training cases of a model's dataset.

    Attributes:
        description: the dataset.
        files: case to its "images" and "label".
        splits: one entry per fold.
        ending: file ending of images and label maps.
    """

    description: Dataset
    files: Mapping[str, Mapping[str, Any]]
    splits: Sequence[Split]
    ending: str

    @classmethod
    def open(cls, model_folder: Path, chosen_splits: Path | None) -> TrainingData:
        """Finds the dataset that a model was trained on in nnU-Net's folders.

        Args:
            model_folder: with `plans.json` and `dataset.json`.
            chosen_splits: file with the splits; None takes the dataset's own in `nnUNet_preprocessed`.

        Raises:
            FileNotFoundError: if images or splits are not there.
            ValueError: if nnU-Net's variables are not set.
        """
        plans, dataset_json = model_description(model_folder)
        name = plans["dataset_name"]
        files = training_files(name, dataset_json)
        splits = read_splits(chosen_splits if chosen_splits else splits_file(name))
        examples = [Path(of_case["label"]) for of_case in files.values()]
        return cls(open_dataset(dataset_json, plans, examples), files, splits, dataset_json["file_ending"])

    def scheme(self) -> LabelScheme:
        """How label maps and the network's outputs are interpreted."""
        dataset = self.description
        return LabelScheme(dataset.structures, dataset.regions, dataset.ignore_label)

    def case(self, name: str, previous_stage_folder: Path | None) -> Case:
        """The case of a name in the splits.

        Raises:
            ValueError: if the dataset has no such case.
        """
        if name not in self.files:
            raise ValueError(
                f"The splits must name cases of the dataset; it has no {name}. Give the right splits with --splits."
            )
        previous = previous_stage_folder / f"{name}{self.ending}" if previous_stage_folder else None
        return Case(name, tuple(Path(file) for file in self.files[name]["images"]), previous)


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
