"""What `nnunet_ext error-map dataset` does: writes the raw dataset that an error model is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_ext.commands.held_out_folds import held_out_by_fold, require_all_predicted, trained_folds
from nnunet_ext.commands.new_dataset import new_dataset, seen_from
from nnunet_ext.commands.training_data import TrainingData
from nnunet_ext.error_maps.corruptions import Grid, corruptions
from nnunet_ext.error_maps.error_dataset import (
    corrupted_name,
    error_dataset_json,
    error_labels,
    error_splits,
    foreground_labels,
    one_hot,
    require_plain_names,
)
from nnunet_ext.evaluation.end_slices import stack_axis_of
from nnunet_ext.evaluation.label_maps import NotComparableError, read_label_map
from nnunet_ext.files.atomic import write_json
from nnunet_ext.inference.engine import EnsembleEngine, device_of
from nnunet_ext.machine.devices import prepare_process_for
from nnunet_ext.models.description import model_description
from nnunet_ext.models.named_folders import chosen_model_folders
from nnunet_ext.options import EnsembleOptions, ErrorDatasetOptions, ModelChoice, OutputOptions
from nnunet_ext.prediction_folder.case_files import CasePrediction

TakeSegmentation = Callable[[str, np.ndarray, Mapping[str, Any]], None]  # case, labels, what the reader recorded


@dataclass(frozen=True)
class ErrorDataset:
    """What was written.

    Attributes:
        folder: the raw dataset.
        splits: file of its splits.
        held_out: number of cases with an out-of-fold prediction.
        corrupted: number of corruptions.
        folds: number of folds.
    """

    folder: Path
    splits: Path
    held_out: int
    corrupted: int
    folds: int


def write_error_dataset(options: ErrorDatasetOptions) -> ErrorDataset:
    """Writes a raw dataset with image and segmentation as channels and the segmentation's errors as labels.

    Raises:
        TrainedOnError: if a member would predict a case, or a patient, that it was trained on.
        FileExistsError: if there is a dataset of the new number.
        CaseNotPredictedError: if a case could not be predicted.
        NotComparableError: if a prediction does not belong to its truth.
        ValueError: if there are fewer than two folds, a case is held out by several, or there are several models.
    """
    model = one_model(options.model)
    plans, dataset_json = model_description(model)
    data = TrainingData.open(model, options.splits)
    folds = options.folds or trained_folds(model, options.members or "final")
    if len(folds) < 2:
        raise ValueError(
            f"An error model is trained on what some folds held out and validated on another; found {len(folds)} of "
            f"{model}. Train at least 2."
        )
    held_out = list(held_out_by_fold(folds, [model], data.splits, options.patients).values())
    cases = [case for names in held_out for case in names]
    require_plain_names(cases)
    error_splits(held_out, cases)  # refuses cases that several folds held out, before anything is predicted
    name = options.name or f"{plans['dataset_name'].partition('_')[2]}Errors"
    with new_dataset(options.new_id, name) as made:
        writer = ErrorCaseWriter(made.staging, made.folder, data, foreground_labels(dataset_json), options)
        with tqdm(total=len(cases), unit="case", disable=not options.allow_tqdm) as progress:
            for fold, names in zip(folds, held_out, strict=True):
                segment_held_out(model, fold, names, data, options, writer.write, progress)
        recorded = {
            "dataset": plans["dataset_name"],
            "model": model.name,
            "folds": [str(fold) for fold in folds],
            "patients": options.patients,
            "corruptions": options.corruptions,
            "seed": options.seed,
        }
        write_json(error_dataset_json(dataset_json, writer.cases, recorded), made.staging / "dataset.json")
        write_json(error_splits(held_out, writer.cases), made.splits)
    return ErrorDataset(made.folder, made.splits, len(cases), len(writer.cases) - len(cases), len(folds))


def one_model(choice: ModelChoice) -> Path:
    """The one model folder that was chosen.

    Raises:
        ValueError: if there are several.
    """
    folders = chosen_model_folders(choice)
    if len(folders) > 1:
        raise ValueError(f"Error maps are of one model; found {len(folders)} folders. Give one -m.")
    return folders[0]


def segment_held_out(  # noqa: PLR0913 - one fold's cases, where their segmentations come from, and where they go
    model: Path,
    fold: int | str,
    names: Sequence[str],
    data: TrainingData,
    options: ErrorDatasetOptions,
    take: TakeSegmentation,
    progress: tqdm,
) -> None:
    """Passes on the segmentation of each held-out case: from `fold_X/validation`, or predicted by the fold's members.

    Raises:
        CaseNotPredictedError: if a case could not be predicted.
        NotComparableError: if a file cannot be read.
    """

    def took(case: str, segmentation: np.ndarray, properties: Mapping[str, Any]) -> None:
        take(case, segmentation, properties)
        progress.update()

    validation = model / f"fold_{fold}" / "validation"
    files = {case: validation / f"{case}{data.ending}" for case in names}
    if options.members is None and all(file.is_file() for file in files.values()):
        for case, file in files.items():
            took(case, *read_label_map(file, data.description.reader))
        return
    ensemble = EnsembleOptions(members=options.members or "final", device=options.device, allow_tqdm=False)
    prepare_process_for(device_of(ensemble))
    engine = EnsembleEngine.from_model_folders([model], ensemble, folds=[fold])
    outcome = engine.predict_cases([data.case(name, None) for name in names], Sink(took), OutputOptions(maps=()))
    require_all_predicted(outcome, fold)


@dataclass(frozen=True)
class Sink:
    """Takes predicted cases and passes on their segmentations."""

    take: TakeSegmentation

    def write(self, prediction: CasePrediction) -> None:
        """Passes on one case."""
        self.take(prediction.case, prediction.segmentation, prediction.properties)


@dataclass
class ErrorCaseWriter:
    """Writes the files of cases and their corruptions.

    Attributes:
        staging: the dataset's folder until it is complete.
        folder: its folder in the end, to which the paths in `dataset.json` are relative.
        data: the segmented dataset.
        labels: that become channels.
        options: of the command.
        cases: name to "images" and "label" of all that was written, as in nnU-Net's `dataset.json`.
    """

    staging: Path
    folder: Path
    data: TrainingData
    labels: Sequence[int]
    options: ErrorDatasetOptions
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, case: str, segmentation: np.ndarray, properties: Mapping[str, Any]) -> None:
        """Writes a case with the segmentation of its fold, and its corruptions.

        Raises:
            NotComparableError: if the segmentation does not belong to the truth.
        """
        description = self.data.description
        truth, _ = read_label_map(Path(self.data.files[case]["label"]), description.reader)
        if segmentation.shape != truth.shape:
            raise NotComparableError(
                f"Prediction and truth must have the same shape; {case} has {segmentation.shape} and {truth.shape}. "
                f"Was it predicted from another image?"
            )
        spacing = tuple(float(step) for step in properties["spacing"])
        axis = stack_axis_of(spacing) if description.stack_axis is None else description.stack_axis
        self._write_one(case, case, segmentation, truth, properties)
        for kind, corrupted in corruptions(
            *(case, truth, Grid(spacing, axis)),
            count=self.options.corruptions,
            seed=self.options.seed,
            ignore_label=description.ignore_label,
        ):
            self._write_one(corrupted_name(case, kind), case, corrupted, truth, properties)

    def _write_one(
        self, name: str, case: str, segmentation: np.ndarray, truth: np.ndarray, properties: Mapping[str, Any]
    ) -> None:
        reader, ending = self.data.description.reader, self.data.ending
        images = [seen_from(self.folder, Path(file)) for file in self.data.files[case]["images"]]
        for number, mask in enumerate(one_hot(segmentation, self.labels), start=len(images)):
            file = Path("imagesTr") / f"{name}_{number:04d}{ending}"
            self._write_labels(mask, file, reader, properties)
            images.append(file.as_posix())
        label = Path("labelsTr") / f"{name}{ending}"
        errors = error_labels(segmentation, truth, self.data.description.ignore_label)
        self._write_labels(errors, label, reader, properties)
        self.cases[name] = {"images": images, "label": label.as_posix()}

    def _write_labels(self, values: np.ndarray, file: Path, reader: Any, properties: Mapping[str, Any]) -> None:
        path = self.staging / file
        path.parent.mkdir(parents=True, exist_ok=True)
        reader.write_seg(values, str(path), dict(properties))
