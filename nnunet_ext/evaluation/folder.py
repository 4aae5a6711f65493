"""Evaluates all predictions of a folder in parallel; cases that cannot be compared are reported."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from nnunet_ext.error_text import in_words
from nnunet_ext.evaluation.case_metrics import Judgement, evaluate_case
from nnunet_ext.evaluation.end_slices import planned_stack_axis
from nnunet_ext.evaluation.folds import fold_names, fold_of_cases, is_validation
from nnunet_ext.evaluation.label_map_reader import reader_of
from nnunet_ext.evaluation.label_maps import NotComparableError, read_label_map, read_pair, require_labels
from nnunet_ext.evaluation.label_translation import LabelTranslation, translated
from nnunet_ext.evaluation.remarks import warn_of_truths_not_taken, warn_of_unknown_spacing
from nnunet_ext.evaluation.results import CaseEvaluation, FolderEvaluation
from nnunet_ext.evaluation.superadditivity import member_dice, member_files
from nnunet_ext.files.listing import visible_files
from nnunet_ext.labels import Region, regions_of
from nnunet_ext.options import MEMORY_MAPS, JudgeOptions, MetricOptions
from nnunet_ext.prediction_folder.map_files import map_file_ending

DEFAULT_PLANS = {"label_manager": "LabelManager"}  # nnU-Net's own default, which it would print


@dataclass(frozen=True)
class Dataset:
    """What must be known about a dataset to evaluate its predictions.

    Attributes:
        structures: name of every foreground class or region to its labels, in the order of the network's outputs.
        stock_keys: name of each of them to what nnU-Net's evaluation calls it.
        labels: all labels, including background, without the ignore label.
        regions: whether the structures are regions.
        ignore_label: None if there is none.
        file_ending: file ending of label maps.
        reader: nnU-Net's reader for them.
        stack_axis: axis along which slices are stacked, on the reader's axes: the first one of the plans. None if
            they do not say; then it is the axis of each case's largest spacing.
        translation: label of the truth to label of the dataset; None if the truth has the dataset's labels.
    """

    structures: Mapping[str, Region]
    stock_keys: Mapping[str, int | Region]
    labels: frozenset[int]
    regions: bool
    ignore_label: int | None
    file_ending: str
    reader: BaseReaderWriter
    stack_axis: int | None = None
    translation: LabelTranslation | None = None

    def translate(self, truth: np.ndarray) -> np.ndarray:
        """A truth in the labels of the dataset."""
        return truth if self.translation is None else translated(truth, self.translation)

    def judgement(self, metrics: MetricOptions) -> Judgement:
        """How its cases are evaluated."""
        return Judgement(self.structures, self.regions, self.ignore_label, self.stack_axis, metrics)


@dataclass(frozen=True)
class Files:
    """The files of one case; maps, probabilities and the members' own segmentations where they exist."""

    case: str
    truth: Path
    prediction: Path
    probabilities: Path | None
    maps: Mapping[str, Path]
    members: Mapping[str, Path]
    fold: str = ""


def open_dataset(dataset_json: dict[str, Any], plans: dict[str, Any], examples: Iterable[Path]) -> Dataset:
    """Reads a dataset's description as nnU-Net does.

    Args:
        dataset_json: content of `dataset.json`.
        plans: content of `plans.json`; empty if there are none.
        examples: label maps, from which nnU-Net finds the reader if the plans do not name it.
    """
    manager = PlansManager({**DEFAULT_PLANS, **plans}).get_label_manager(dataset_json)
    structures = regions_of(dataset_json)
    if manager.has_regions:
        # a region of one label: 3 stays 3, and [3] is (3,)
        stock_keys = dict(zip(structures, manager.foreground_regions, strict=True))
    else:
        structures = dict(sorted(structures.items(), key=lambda item: item[1]))  # in the order of the outputs
        stock_keys = {name: labels[0] for name, labels in structures.items()}
    return Dataset(
        structures=structures,
        stock_keys=stock_keys,
        labels=frozenset({0, *(label for labels in structures.values() for label in labels)}),
        regions=manager.has_regions,
        ignore_label=manager.ignore_label,
        file_ending=dataset_json["file_ending"],
        reader=reader_of(dataset_json, plans, examples),
        stack_axis=planned_stack_axis(plans),
    )


def evaluate_folder(
    truth_folder: Path, prediction_folder: Path, dataset: Dataset, options: JudgeOptions | None = None
) -> FolderEvaluation:
    """Evaluates every case with a label map in both folders; see `evaluate_folds`."""
    return evaluate_folds(truth_folder, [prediction_folder], dataset, options)


def evaluate_folds(
    truth_folder: Path, prediction_folders: Sequence[Path], dataset: Dataset, options: JudgeOptions | None = None
) -> FolderEvaluation:
    """Evaluates every case with a label map in the truth's folder and in one of the others.

    Args:
        truth_folder: label maps, CASE<ending>.
        prediction_folders: label maps of the same names; `CASE.npz`, `maps/NAME/CASE<ending>` and
            `members/NAME/CASE<ending>` are evaluated if they exist. Several are the folds of a cross-validation. Of
            `fold_X/validation` only its own cases count.
        dataset: see `open_dataset`.
        options: how they are compared; None takes the defaults of `JudgeOptions`.

    Raises:
        FileNotFoundError: if a folder is missing or contains no label map.
        ValueError: if a case is in two of the folders, or no case is in the truth's and in another.
    """
    options = options or JudgeOptions()
    truths = label_map_files(truth_folder, dataset.file_ending)
    warn_of_truths_not_taken(truth_folder, dataset.file_ending)
    folders = dict(zip(fold_names(prediction_folders), prediction_folders, strict=True))
    found = {fold: label_map_files(folder, dataset.file_ending) for fold, folder in folders.items()}
    fold_of = fold_of_cases({fold: list(files) for fold, files in found.items()})
    problems = {} if options.allow_missing else unpaired(truths, fold_of)
    not_predicted: tuple[str, ...] = ()
    if options.allow_missing or all(map(is_validation, prediction_folders)):
        not_predicted = tuple(sorted(truths.keys() - fold_of.keys()))
        problems = {case: problem for case, problem in problems.items() if case not in not_predicted}
    common = [files_of(case, truths[case], folders[fold_of[case]], dataset) for case in truths if case in fold_of]
    if truths and fold_of and not common:
        raise ValueError(
            f"A prediction is evaluated with the ground truth of its name; no name is in both folders: "
            f"{truth_folder} has {min(truths)}, {prediction_folders[0]} {min(fold_of)}. Give the folder of labels."
        )
    warn_of_unknown_spacing([(files.truth, files.prediction) for files in common], type(dataset.reader).__name__)
    if len(folders) > 1:
        common = [replace(files, fold=fold_of[files.case]) for files in common]
    results = parallel(common, dataset, options.metrics, options.processes or 1)
    cases = []
    for files, result in tqdm(
        zip(common, results, strict=True), total=len(common), unit="case", disable=not options.show_progress
    ):
        if isinstance(result, str):
            problems[files.case] = result
        else:
            cases.append(result)
    return FolderEvaluation(dataset.structures, cases, dict(sorted(problems.items())), not_predicted)


def label_map_files(folder: Path, file_ending: str) -> dict[str, Path]:
    """Case to file, by name.

    Raises:
        FileNotFoundError: if there is none.
    """
    found = visible_files(folder) if folder.is_dir() else []
    files = {path.name[: -len(file_ending)]: path for path in found if path.name.endswith(file_ending)}
    if not files:
        raise FileNotFoundError(
            f"A folder of label maps must contain files CASE{file_ending}; {folder} "
            f"{'contains none' if folder.is_dir() else 'does not exist'}. Correct the path."
        )
    return files


def unpaired(truths: Mapping[str, Any], predictions: Mapping[str, Any]) -> dict[str, str]:
    """Case to what is missing."""
    no_prediction = "There is no prediction of this case. Predict it, or allow missing cases with --chill."
    no_truth = "There is a prediction but no ground truth of this case. Remove it, or allow it with --chill."
    return dict.fromkeys(truths.keys() - predictions.keys(), no_prediction) | dict.fromkeys(
        predictions.keys() - truths.keys(), no_truth
    )


def files_of(case: str, truth: Path, prediction_folder: Path, dataset: Dataset) -> Files:
    """The files of a case that exist."""
    probabilities = prediction_folder / f"{case}.npz"
    folders = sorted(path for path in (prediction_folder / "maps").glob("*") if path.is_dir())
    folders = [path for path in folders if not path.name.startswith(MEMORY_MAPS)]  # they are not uncertainties
    # asked only where there are maps: a reader of somebody else's has no ending for them
    ending = map_file_ending(dataset.file_ending, dataset.reader) if folders else ""
    maps = {folder.name: folder / f"{case}{ending}" for folder in folders}
    return Files(
        case=case,
        truth=truth,
        prediction=prediction_folder / f"{case}{dataset.file_ending}",
        probabilities=probabilities if probabilities.is_file() else None,
        maps={name: path for name, path in maps.items() if path.is_file()},
        members=member_files(prediction_folder, case, dataset.file_ending),
    )


def parallel(
    files: Sequence[Files], dataset: Dataset, metrics: MetricOptions, processes: int
) -> Iterator[CaseEvaluation | str]:
    """The cases in their order; processes are spawned, as nnU-Net's are, as forking a threaded process may hang."""
    arguments = (files, [dataset] * len(files), [metrics] * len(files))
    if min(processes, len(files)) <= 1:
        yield from map(evaluate_files, *arguments)
        return
    with worker_pool(min(processes, len(files))) as pool:
        yield from pool.map(evaluate_files, *arguments)


def worker_pool(processes: int) -> ProcessPoolExecutor:
    """Spawned processes that ignore Ctrl-C, which a terminal sends to all, so that only the command reports it."""
    return ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )


def evaluate_files(files: Files, dataset: Dataset, metrics: MetricOptions) -> CaseEvaluation | str:
    """The evaluation of a case, or what is wrong with its files."""
    try:
        pair = read_pair(
            files.truth, files.prediction, dataset.reader, dataset.labels, dataset.ignore_label, dataset.translate
        )
        probabilities = (
            read_probabilities(files.probabilities, pair.truth.shape, dataset) if files.probabilities else None
        )
        maps = {name: read_map(path, pair.truth.shape, dataset) for name, path in files.maps.items()}
        judgement = dataset.judgement(metrics)
        evaluation = evaluate_case(files.case, pair, judgement, probabilities=probabilities, maps=maps)
        members = {
            name: member_dice(read_member(path, pair.truth, dataset), pair.truth, judgement)
            for name, path in files.members.items()
        }
    except NotComparableError as error:
        return str(error)
    stock = {
        "reference_file": str(files.truth),
        "prediction_file": str(files.prediction),
        "metrics": {dataset.stock_keys[name]: values for name, values in evaluation.stock.items()},
    }
    return replace(evaluation, stock=stock, fold=files.fold, member_dice=members)


def read_member(path: Path, truth: np.ndarray, dataset: Dataset) -> np.ndarray:
    """(z, y, x): a member's own segmentation.

    Raises:
        NotComparableError: if it cannot be read, has another shape than the truth, or labels of another dataset.
    """
    segmentation, _ = read_label_map(path, dataset.reader)
    if segmentation.shape != truth.shape:
        raise NotComparableError(
            f"A member's segmentation must have the shape of the truth, {truth.shape}; {path} has "
            f"{segmentation.shape}."
        )
    require_labels(segmentation, dataset.labels, f"the member's segmentation {path}")
    return segmentation


def read_probabilities(path: Path, shape: tuple[int, ...], dataset: Dataset) -> np.ndarray:
    """(C, z, y, x) of `CASE.npz`.

    Raises:
        NotComparableError: if it cannot be read, or has another shape.
    """
    try:
        with np.load(path) as content:
            probabilities = content["probabilities"]
    except Exception as error:  # a zip file can be damaged in many ways; the case is reported
        raise NotComparableError(f"{path} cannot be read as nnU-Net's probabilities: {in_words(error)}") from error
    expected = (len(dataset.structures) + (0 if dataset.regions else 1), *shape)
    if probabilities.shape != expected:
        raise NotComparableError(
            f"Probabilities must have the shape {expected}, outputs first; {path} has {probabilities.shape}."
        )
    if not np.isfinite(probabilities).all() or probabilities.min() < -1e-3 or probabilities.max() > 1 + 1e-3:
        raise NotComparableError(f"Probabilities must be in [0, 1]; {path} contains other values. Are they logits?")
    return probabilities


def read_map(path: Path, shape: tuple[int, ...], dataset: Dataset) -> np.ndarray:
    """(z, y, x) of an uncertainty map.

    Raises:
        NotComparableError: if it cannot be read, has another shape, or values outside [0, 1].
    """
    try:
        values = dataset.reader.read_images([str(path)])[0][0]
    except Exception as error:  # each reader raises errors of its own; the case is reported
        raise NotComparableError(f"{path} cannot be read as a map: {in_words(error)}") from error
    if values.shape != shape:
        raise NotComparableError(
            f"A map must have the shape of the segmentation, {shape}; {path} has {values.shape}."
        )
    if not (values.min() >= 0 and values.max() <= 1):  # so that NaN is refused, too
        raise NotComparableError(f"A map must be in [0, 1]; {path} has {values.min()} to {values.max()}.")
    return values
