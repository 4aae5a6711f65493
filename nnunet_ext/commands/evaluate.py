"""What `nnunet_ext evaluate` does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nnunetv2.configuration import default_num_processes

from nnunet_ext.commands.predict import usable_cores
from nnunet_ext.evaluation.comparison import PairedComparison, paired_comparison
from nnunet_ext.evaluation.error_analysis import error_analysis, read_columns
from nnunet_ext.evaluation.failure_table import failure_table
from nnunet_ext.evaluation.folder import Dataset, evaluate_folder, label_map_files, open_dataset
from nnunet_ext.evaluation.patients import patient_of
from nnunet_ext.evaluation.results import FolderEvaluation
from nnunet_ext.evaluation.summary import own_summary, write_case_metrics_csv, write_metrics_csv, write_summary
from nnunet_ext.evaluation.text import comparison_lines, evaluation_lines
from nnunet_ext.options import DatasetFiles, EndVariant, EvaluationOptions, JudgeOptions
from nnunet_ext.prediction_folder.case_table import recorded_rows

Comparisons = dict[str, PairedComparison]  # structure and figure to the result


@dataclass(frozen=True)
class EvaluationResult:
    """What came of an evaluation.

    Attributes:
        folder: that the tables are in.
        lines: for a person.
        problems: name of a case to what is wrong with it.
    """

    folder: Path
    lines: list[str]
    problems: dict[str, str]


def evaluate_predictions(options: EvaluationOptions) -> EvaluationResult:
    """Evaluates a folder, and a second one beside it if asked to; writes the tables.

    Raises:
        FileNotFoundError: if a folder or the dataset's description is missing.
        ValueError: if an option does not fit the data.
    """
    predictions = options.predictions[0]
    evaluation = compared_with_truth(options.truths, predictions, options.described_by, options.judge)
    rows = recorded_rows(predictions)  # none in a folder that stock nnU-Net wrote
    own: dict[str, Any] = {
        **own_summary(evaluation, end_threshold=options.end_threshold),
        "settings": settings_of(options),
        "failure_detection": failure_table(evaluation.cases, rows, failure_dice=options.failure_dice),
        "error_analysis": error_analysis(
            evaluation.cases, read_columns(options.groups) if options.groups else {}, worst=options.worst
        ),
    }
    lines = evaluation_lines(own)
    problems = dict(evaluation.problems)
    for name in options.other:
        other = compared_with_truth(options.truths, name, options.described_by, options.judge)
        problems |= {f"{name}: {case}": problem for case, problem in other.problems.items()}
        compared = comparisons(evaluation, other, options.patients, options.end_variant)
        own["comparison"] = {
            "other": str(name),
            "first_minus_other": {k: asdict(v) for k, v in compared.items()},
        }
        lines += comparison_lines(compared, str(name))
    folder = options.output or predictions
    folder.mkdir(parents=True, exist_ok=True)
    write_metrics_csv(evaluation, folder / "metrics.csv")
    write_case_metrics_csv(evaluation, folder / "case_metrics.csv")
    write_summary(evaluation, folder / "summary.json", own)
    return EvaluationResult(folder, lines, problems)


def settings_of(options: EvaluationOptions) -> dict[str, Any]:
    """What the figures depend on besides the data; recorded in `summary.json`."""
    return {
        **asdict(options.judge.metrics),
        "end_variant": options.end_variant,
        "end_threshold": options.end_threshold,
        "failure_dice": options.failure_dice,
    }


def compared_with_truth(
    truths: Path, predictions: Path, described_by: DatasetFiles, judge: JudgeOptions
) -> FolderEvaluation:
    """Evaluates one folder, for `evaluate` and for `report`."""
    processes = judge.processes or min(default_num_processes, usable_cores())
    dataset = dataset_of(predictions, truths, described_by)
    return evaluate_folder(truths, predictions, dataset, replace(judge, processes=processes))


def dataset_of(predictions: Path, truths: Path, described_by: DatasetFiles) -> Dataset:
    """The dataset of a prediction folder: described there, or in the model whose validation it is.

    Plans are not needed: without them the stack of slices is along each case's largest spacing.

    Raises:
        FileNotFoundError: if `dataset.json` or plans that were named are not found, or the truth's folder holds no
            label map.
    """
    dataset_file = described_by.dataset or first_file(predictions, "dataset.json")
    if dataset_file is None or not dataset_file.is_file():
        raise FileNotFoundError(
            f"Predictions are judged by their dataset's dataset.json; {dataset_file or predictions / 'dataset.json'} "
            f"does not exist. Give it with -djfile."
        )
    plans_file = described_by.plans or first_file(predictions, "plans.json")
    if plans_file is not None and not plans_file.is_file():
        raise FileNotFoundError(f"-pfile names the plans of the model; {plans_file} does not exist. Correct it.")
    dataset_json, plans = (
        json.loads(file.read_text(encoding="utf-8")) if file else {} for file in (dataset_file, plans_file)
    )
    example = next(iter(label_map_files(truths, dataset_json["file_ending"]).values()))
    return open_dataset(dataset_json, plans, example)


def first_file(predictions: Path, name: str) -> Path | None:
    """A file of a prediction folder, or of the model above it; None if neither has it."""
    # MODEL/fold_0/validation is two below the model's own files
    places = (predictions / name, predictions.resolve().parent.parent / name)
    return next((place for place in places if place.is_file()), None)


COMPARED = ("dice", "hd95_mm", "nsd")  # of each structure
COMPARED_CASE_FIGURES = ("mean_dice", "end_slice_dice_{variant}", "ece", "brier", "nll")


def comparisons(
    first: FolderEvaluation, second: FolderEvaluation, patients: str | None, end_variant: EndVariant = "paper"
) -> Comparisons:
    """First less second, paired by case, for every figure and structure that both have.

    Raises:
        ValueError: if no case is in both, or the pattern of patients does not fit a case.
    """
    others = {case.case: case for case in second.cases}
    pairs = [(case, others[case.case]) for case in first.cases if case.case in others]
    if not pairs:
        raise ValueError("Two folders are compared on the cases that both have; found none.")
    groups = [patient_of(case.case, patients) for case, _ in pairs]
    columns: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
    for name in (figure.format(variant=end_variant) for figure in COMPARED_CASE_FIGURES):
        if all(name in case.figures for pair in pairs for case in pair):
            columns[name] = ([one.figures[name] for one, _ in pairs], [other.figures[name] for _, other in pairs])
    for structure, labels in first.structures.items():
        if second.structures.get(structure) != labels:
            continue
        for name in COMPARED:
            columns[f"{structure} {name}"] = (
                [one.structures[structure][name] for one, _ in pairs],
                [other.structures[structure][name] for _, other in pairs],
            )
    return {name: paired_comparison(one, other, groups=groups) for name, (one, other) in columns.items()}
