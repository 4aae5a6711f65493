"""`nnunet_ext postprocess`: chooses post-processing on predictions of held-out cases."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from nnunet_ext.calibration.fit_checks import require_patients
from nnunet_ext.commands.held_out_folds import (
    held_out_by_fold,
    members_of_fold,
    patients_of,
    predict_fold,
    require_disjoint,
    trained_folds,
)
from nnunet_ext.commands.training_data import TrainingData
from nnunet_ext.evaluation.folder import read_probabilities
from nnunet_ext.evaluation.label_maps import read_label_map, read_pair
from nnunet_ext.files.writable import require_writable
from nnunet_ext.inference.engine import device_of
from nnunet_ext.inference.run import progress_logger
from nnunet_ext.inference.stages.postprocess import postprocessing_file
from nnunet_ext.machine.devices import prepare_process_for
from nnunet_ext.models.description import model_description
from nnunet_ext.models.named_folders import chosen_model_folders
from nnunet_ext.options import PostprocessOptions
from nnunet_ext.patients import patient_of
from nnunet_ext.postprocessing.chain import PostProcessing, dataset_of
from nnunet_ext.postprocessing.choice import Choice, families_of, gain_as_json
from nnunet_ext.postprocessing.cross_validated import CrossValidatedCase, cropped_case
from nnunet_ext.postprocessing.step import SegmentedCase
from nnunet_ext.postprocessing.structures import anatomy_of
from nnunet_ext.prediction_folder.agreement import require_agreement
from nnunet_ext.prediction_folder.case_files import CasePrediction

logger = logging.getLogger(__name__)


def choose_postprocessing(options: PostprocessOptions) -> tuple[PostProcessing, Path]:
    """Takes each fold's validation cases as that fold's members predict them, chooses steps and saves them.

    Returns:
        What was chosen, and the file that it was saved to.

    Raises:
        TrainedOnError: if members would be tested on a case, or on a patient, that they were trained on.
        CaseNotPredictedError: if a case could not be predicted.
        FileNotFoundError: if a validation folder lacks a case.
        ValueError: if options contradict each other, or there are cases of one patient only.
    """
    if options.previous_stage is not None:
        require_agreement(options.previous_stage)
    folders = chosen_model_folders(options.model)
    file = options.file or postprocessing_file(True, folders)
    require_writable(file)
    data = TrainingData.open(folders[0], options.splits)
    _, dataset_json = model_description(folders[0])
    anatomy = anatomy_of(dataset_json, options.relabel)
    folds = options.ensemble.fold_list or trained_folds(folders[0], options.ensemble.members)
    held_out = held_out_by_fold(folds, folders, data.splits, options.patients)
    cases_of_fold = {str(fold): names for fold, names in held_out.items()}
    require_disjoint(held_out)
    patients = require_patients("The choice of post-processing", patients_of(held_out, options.patients))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        collector = Collector(data, options.patients, Path(folder))
        if options.from_validation:
            source: Source = validated(folders[0], cases_of_fold, collector)
        else:
            source = predicted(folders, cases_of_fold, collector, options)
        choice = Choice(collector.cases, data.scheme())
        families = families_of(anatomy, options.operations, probabilities=source.probabilities)
        numbers = list(range(len(collector.cases)))
        progress_logger.info("%d candidates on %d cases", sum(map(len, families)), len(numbers))
        steps, trials = choice.steps(families, numbers)
        together = choice.nested_gain(families, numbers) if steps else None
        dice = fmean(choice.dice(number, ()) for number in numbers)
    chosen = PostProcessing(
        steps=steps,
        dataset=dataset_of(dataset_json),
        settings=source.settings,
        fitted_on={
            "folds": list(cases_of_fold),
            "members": source.members,
            "source": "validation folders" if options.from_validation else "predicted",
            "probabilities": source.probabilities,
            "cases": len(numbers),
            "patients": patients,
        },
        report={
            "dice": dice,
            "candidates": [trial.as_json() for trial in trials],
            "together": None if together is None else gain_as_json(together),
        },
    )
    chosen.save(file)
    return chosen, file


@dataclass(frozen=True)
class Source:
    """Where the cases are from.

    Attributes:
        probabilities: whether every case has probabilities.
        settings: settings of the ensemble; empty if the training predicted.
        members: name and SHA-256 of each; empty likewise.
    """

    probabilities: bool
    settings: Mapping[str, Any] = field(default_factory=dict)
    members: Sequence[Mapping[str, Any]] = ()


@dataclass
class Collector:
    """Takes predicted cases and keeps what the choice needs of them.

    Attributes:
        data: the training cases.
        patients: pattern of the patients in the names; None counts each case as one.
        folder: for the probabilities.
        fold: fold whose members predict at the moment.
        cases: those taken so far.
    """

    data: TrainingData
    patients: str | None
    folder: Path
    fold: str = ""
    cases: list[CrossValidatedCase] = field(default_factory=list)

    def truth_file(self, case: str) -> Path:
        """The label map of a case."""
        return Path(self.data.files[case]["label"])

    def write(self, prediction: CasePrediction) -> None:
        """Takes a case that the ensemble predicted."""
        truth, _ = read_label_map(self.truth_file(prediction.case), self.data.description.reader)
        segmented = SegmentedCase(prediction.segmentation, prediction.properties["spacing"], prediction.probabilities)
        self.take(prediction.case, segmented, truth)

    def take(self, case: str, segmented: SegmentedCase, truth: np.ndarray) -> None:
        """Takes a segmented case with its truth (*spatial)."""
        names = {"case": case, "patient": patient_of(case, self.patients), "fold": self.fold}
        self.cases.append(cropped_case(segmented, truth, self.data.scheme(), self.folder, names=names))


def predicted(
    folders: Sequence[Path],
    cases_of_fold: Mapping[str, Sequence[str]],
    collector: Collector,
    options: PostprocessOptions,
) -> Source:
    """Each fold's cases, predicted by its members.

    Raises:
        CaseNotPredictedError: if a case fails.
    """
    prepare_process_for(device_of(options.ensemble))
    members: list[dict[str, Any]] = []
    settings: Mapping[str, Any] = {}
    for fold, names in cases_of_fold.items():
        collector.fold = fold
        cases = [collector.data.case(name, options.previous_stage) for name in names]
        engine = members_of_fold(fold, folders, options.ensemble, options.previous_stage)
        predict_fold(engine, fold, cases, collector)
        settings = engine.settings
        members += [member.record() for model in engine.models for member in model.members]
    return Source(
        probabilities=True,
        settings=settings,
        members=[{key: member[key] for key in ("name", "sha256")} for member in members],
    )


def validated(folder: Path, cases_of_fold: Mapping[str, Sequence[str]], collector: Collector) -> Source:
    """Each fold's cases, as the training predicted them into `fold_X/validation`.

    Raises:
        FileNotFoundError: if a segmentation is missing.
        NotComparableError: if a file cannot be read, or does not fit the truth.
    """
    dataset = collector.data.description
    places = {case: folder / f"fold_{fold}" / "validation" for fold, names in cases_of_fold.items() for case in names}
    missing = [place / f"{case}{dataset.file_ending}" for case, place in places.items()]
    missing = [file for file in missing if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"A fold's validation folder must hold all of its validation cases; {missing[0]} does not exist"
            f"{f', nor do {len(missing) - 1} others' if len(missing) > 1 else ''}. Run nnUNetv2_train with --val, or "
            f"leave out --from-validation."
        )
    probabilities = all((place / f"{case}.npz").is_file() for case, place in places.items())
    for fold, names in cases_of_fold.items():
        collector.fold = fold
        for case in names:
            place = places[case]
            pair = read_pair(
                collector.truth_file(case),
                place / f"{case}{dataset.file_ending}",
                dataset.reader,
                dataset.labels,
                dataset.ignore_label,
            )
            values = read_probabilities(place / f"{case}.npz", pair.truth.shape, dataset) if probabilities else None
            segmentation = pair.prediction.astype(np.uint16)
            collector.take(case, SegmentedCase(segmentation, pair.spacing_mm, values), pair.truth)
    return Source(probabilities=probabilities)
