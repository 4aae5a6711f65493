"""What `nnunet_ext evaluate` does with its flags."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunetv2.configuration import default_num_processes

from nnunet_ext.evaluation.comparison import PairedComparison, paired_comparison
from nnunet_ext.evaluation.error_analysis import error_analysis, read_columns
from nnunet_ext.evaluation.failure_table import failure_table
from nnunet_ext.evaluation.folder import Dataset, evaluate_folder, label_map_files, open_dataset
from nnunet_ext.evaluation.results import FolderEvaluation
from nnunet_ext.evaluation.summary import write_case_metrics_csv, write_metrics_csv, write_summary
from nnunet_ext.evaluation.text import comparison_lines, evaluation_lines
from nnunet_ext.machine.devices import usable_cores
from nnunet_ext.patients import patient_of
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


def evaluate_predictions(arguments: argparse.Namespace) -> EvaluationResult:
    """Evaluates a folder, and a second one beside it if asked to; writes the tables.

    Args:
        arguments: the flags of `nnunet_ext evaluate`.

    Raises:
        FileNotFoundError: if a folder or the dataset's description is missing.
        ValueError: if a flag's value does not fit the data.
    """
    predictions, truths = Path(arguments.PRED), Path(arguments.GT)
    evaluation = compared_with_truth(truths, predictions, arguments)
    rows = recorded_rows(predictions)  # none in a folder that stock nnU-Net wrote
    own: dict[str, Any] = {
        "settings": {"nsd_tolerance_mm": arguments.nsd_tolerance, "failure_dice": arguments.failure_dice},
        "failure_detection": failure_table(evaluation.cases, rows, failure_dice=arguments.failure_dice),
        "error_analysis": error_analysis(
            evaluation.cases, read_columns(Path(arguments.groups)) if arguments.groups else {}, worst=arguments.worst
        ),
    }
    lines = evaluation_lines(evaluation, own)
    problems = dict(evaluation.problems)
    if arguments.compare:
        other = compared_with_truth(truths, Path(arguments.compare), arguments)
        problems |= {f"{arguments.compare}: {name}": problem for name, problem in other.problems.items()}
        compared = comparisons(evaluation, other, arguments.patients)
        own["comparison"] = {
            "other": arguments.compare,
            "first_minus_other": {k: asdict(v) for k, v in compared.items()},
        }
        lines += comparison_lines(compared, arguments.compare)
    folder = Path(arguments.o) if arguments.o else predictions
    folder.mkdir(parents=True, exist_ok=True)
    write_metrics_csv(evaluation, folder / "metrics.csv")
    write_case_metrics_csv(evaluation, folder / "case_metrics.csv")
    write_summary(evaluation, folder / "summary.json", **own)
    return EvaluationResult(folder, lines, problems)


def compared_with_truth(truths: Path, predictions: Path, arguments: argparse.Namespace) -> FolderEvaluation:
    """Evaluates one folder with the flags that `evaluate` and `report` share."""
    return evaluate_folder(
        truths,
        predictions,
        dataset_of(predictions, truths, arguments.djfile, arguments.pfile),
        nsd_tolerance_mm=arguments.nsd_tolerance,
        processes=arguments.np or min(default_num_processes, usable_cores()),
        allow_missing=arguments.chill,
        show_progress=not arguments.disable_progress_bar,
    )


def dataset_of(predictions: Path, truths: Path, dataset_file: str | None, plans_file: str | None) -> Dataset:
    """The dataset of a prediction folder: described there, or in the model whose validation it is.

    Raises:
        FileNotFoundError: if the description is not found, or the truth's folder holds no label map.
    """
    content = []
    for chosen, name, flag in ((dataset_file, "dataset.json", "-djfile"), (plans_file, "plans.json", "-pfile")):
        # MODEL/fold_0/validation is two below the model's own files
        places = [Path(chosen)] if chosen else [predictions / name, predictions.resolve().parent.parent / name]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise FileNotFoundError(
                f"Predictions are judged by their dataset's {name}; {places[0]} does not exist. Give it with {flag}."
            )
        content.append(json.loads(file.read_text(encoding="utf-8")))
    dataset_json, plans = content
    example = next(iter(label_map_files(truths, dataset_json["file_ending"]).values()))
    return open_dataset(dataset_json, plans, example)


COMPARED = ("dice", "hd95_mm", "nsd")  # of each structure
COMPARED_CASE_FIGURES = ("mean_dice", "end_slice_dice_strict", "ece", "brier", "nll")


def comparisons(first: FolderEvaluation, second: FolderEvaluation, patients: str | None) -> Comparisons:
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
    for name in COMPARED_CASE_FIGURES:
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
