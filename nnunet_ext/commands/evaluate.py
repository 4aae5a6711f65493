"""What `nnunet_ext evaluate` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nnunetv2.configuration import default_num_processes

from nnunet_ext.descriptions import read_description
from nnunet_ext.evaluation.comparison import PairedComparison, paired_comparison
from nnunet_ext.evaluation.error_analysis import error_analysis, read_columns
from nnunet_ext.evaluation.failure_table import failure_table
from nnunet_ext.evaluation.folder import Dataset, evaluate_folds, label_map_files, open_dataset
from nnunet_ext.evaluation.folds import fold_summary
from nnunet_ext.evaluation.label_translation import parse_translation
from nnunet_ext.evaluation.results import FolderEvaluation
from nnunet_ext.evaluation.summary import own_summary, write_case_metrics_csv, write_metrics_csv, write_summary
from nnunet_ext.evaluation.superadditivity import superadditivity, superadditivity_lines
from nnunet_ext.evaluation.text import comparison_lines, evaluation_lines
from nnunet_ext.evaluation.verdict_check import verdict_check, verdict_check_lines
from nnunet_ext.evaluation.wrong_slices import slices_found
from nnunet_ext.machine.devices import usable_cores
from nnunet_ext.options import DatasetFiles, EndVariant, EvaluationOptions, JudgeOptions
from nnunet_ext.patients import patient_of
from nnunet_ext.prediction_folder.agreement import require_agreement
from nnunet_ext.prediction_folder.case_table import recorded_rows

DATASET = "dataset.json"
Comparisons = dict[str, PairedComparison]  # structure and figure to the result


@dataclass(frozen=True)
class EvaluationResult:
    """The result of an evaluation.

    Attributes:
        folder: folder of the tables.
        lines: text for the terminal.
        problems: case name to what is wrong with it.
    """

    folder: Path
    lines: list[str]
    problems: dict[str, str]


def evaluate_predictions(options: EvaluationOptions) -> EvaluationResult:
    """Evaluates a folder, compares it with a second one if asked to, and writes the tables.

    Raises:
        FileNotFoundError: if a folder or the dataset's description is missing.
        ValueError: if an option does not fit the data, or a folder contradicts itself.
    """
    for predictions in (*options.predictions, *options.other):
        require_agreement(predictions)
    dataset = dataset_of(options.predictions, options.truths, options.described_by, options.map_labels)
    if options.other:
        for case in label_map_files(options.truths, dataset.file_ending):
            patient_of(case, options.patients)  # a pattern that does not fit is refused before the work
    evaluation = compared_with_truth(options.truths, options.predictions, dataset, options.judge)
    # none in a folder that stock nnU-Net wrote
    rows = [row for folder in options.predictions for row in recorded_rows(folder)]
    check = verdict_check(evaluation.cases, rows, failure_dice=options.failure_dice)
    with_members = superadditivity(evaluation.cases)
    own: dict[str, Any] = {
        **own_summary(evaluation, end_threshold=options.end_threshold),
        **fold_summary(evaluation, end_threshold=options.end_threshold),
        "settings": recorded_settings(options, dataset),
        "failure_detection": failure_table(evaluation.cases, rows, failure_dice=options.failure_dice),
        "verdicts": None if check is None else asdict(check),
        "superadditivity": None if with_members is None else asdict(with_members),
        "wrong_slices": {
            name: asdict(found)
            for name, found in slices_found(
                [case.slices for case in evaluation.cases if case.slices is not None],
                failure_dice=options.failure_dice,
            ).items()
        },
        "error_analysis": error_analysis(
            evaluation.cases, read_columns(options.groups) if options.groups else {}, worst=options.worst
        ),
    }
    lines = [*left_out_lines(evaluation), *evaluation_lines(own), *superadditivity_lines(with_members)]
    if check is not None:
        lines += ["", *verdict_check_lines(check)]
    problems = dict(evaluation.problems)
    if options.other:
        name = ", ".join(map(str, options.other))
        other_dataset = dataset_of(options.other, options.truths, options.described_by, options.map_labels)
        other = compared_with_truth(options.truths, options.other, other_dataset, options.judge)
        problems |= {f"{name}: {case}": problem for case, problem in other.problems.items()}
        compared = comparisons(evaluation, other, options.patients, options.end_variant)
        own["comparison"] = {"other": name, "first_minus_other": {k: asdict(v) for k, v in compared.items()}}
        lines += comparison_lines(compared, name)
    folder = options.output or options.predictions[0]
    folder.mkdir(parents=True, exist_ok=True)
    write_metrics_csv(evaluation, folder / "metrics.csv")
    write_case_metrics_csv(evaluation, folder / "case_metrics.csv")
    write_summary(evaluation, folder / "summary.json", own)
    return EvaluationResult(folder, lines, problems)


SUMMARY = {  # keys of `summary.json` below `nnunet_ext`, for the reference
    "cases": "their number",
    "structures": "of each structure, per column of `metrics.csv`, `mean`, `std` (with n - 1), `median`, `min`, "
    "`max`, and the number of `cases` that define it",
    "case_figures": "the same per column of `case_metrics.csv`",
    "pooled_dice": "per structure, the Dice of the voxels of all cases together",
    "absent": "per structure, the number of cases in which neither truth nor prediction has it",
    "end_coefficient": "`paper` and `strict`",
    "reliability": "`voxels`, mean `confidence` and `accuracy` in 20 bins of the chosen class's probability",
    "problems": "what is wrong with a case",
    "folds": "of several folds, each one's `cases` and means",
    "over_folds": "their `mean`, `std` and number of `folds`",
    "settings": "what the figures depend on besides the data",
    "failure_detection": "for each column of `cases.csv` that every case has, `aurc`, `e_aurc`, `augrc`, "
    "`failure_auroc`, `fpr_at_95_tpr`, `spearman`, `pearson`",
    "verdicts": "`failure_dice`; how many `failures` and `good` cases got each verdict; `missed`, the accepted "
    "failures; `intervals`, how many true Dice are `inside`, and cases `without_interval`",
    "superadditivity": "after `--save_members`: `dice`, `mean_of_members`, `best_member`, `best_member_dice` "
    "(of the members that every case has, if any), numbers of `members`, `cases` and `superadditive_cases`, which "
    "reach the members' mean",
    "wrong_slices": "per map, `recall` of slices with a true Dice below `failure_dice`, at the `threshold` that "
    "flags at most a tenth of the others; `false_alarms`; numbers of `wrong` and `right`",
    "error_analysis": "`groups` (structure, third by size, value of a column) with `n`, `mean_dice`, shares of the "
    "kinds of error and more; `worst_cases`",
    "comparison": "with `--compare`: `other`, and `first_minus_other`, per figure `mean_difference`, `low`, `high`, "
    "`level`, `p_value`, `cases`, `groups`, `left_out`",
}


def left_out_lines(evaluation: FolderEvaluation) -> list[str]:
    """How many ground-truth cases were left out because that is allowed; nothing if none was."""
    left_out = len(evaluation.not_predicted)
    if not left_out:
        return []
    all_cases = left_out + len(evaluation.cases) + len(evaluation.problems)
    return [f"Only predicted cases are evaluated; {left_out} of {all_cases} with ground truth are left out.", ""]


def recorded_settings(options: EvaluationOptions, dataset: Dataset) -> dict[str, Any]:
    """What the metrics depend on besides the data; recorded in `summary.json`."""
    return {
        **asdict(options.judge.metrics),
        "end_variant": options.end_variant,
        "end_threshold": options.end_threshold,
        "failure_dice": options.failure_dice,
        "map_labels": dataset.translation,
    }


def compared_with_truth(
    truths: Path, predictions: Sequence[Path], dataset: Dataset, judge: JudgeOptions
) -> FolderEvaluation:
    """Evaluates one folder, or the folds of a cross-validation, for `evaluate` and for `report`."""
    processes = judge.processes or min(default_num_processes, usable_cores())
    return evaluate_folds(truths, predictions, dataset, replace(judge, processes=processes))


def dataset_of(
    predictions: Sequence[Path], truths: Path, described_by: DatasetFiles, map_labels: Sequence[str] = ()
) -> Dataset:
    """The dataset of prediction folders, described in them or in the model folder that they are the validation of.

    Plans are not needed: without them the stack of slices is along each case's largest spacing.

    Args:
        predictions: one folder, or folds.
        truths: folder of the true label maps.
        described_by: files of the description if it is not there.
        map_labels: see `parse_translation`.

    Raises:
        FileNotFoundError: if `dataset.json` or plans that were named are not found, or the truth's folder contains no
            label map.
        ValueError: if folds differ in labels, or `map_labels` is invalid.
    """
    descriptions = [description_of(folder, described_by) for folder in predictions]
    dataset_json, plans = descriptions[0]
    for folder, (other, _) in zip(predictions, descriptions, strict=True):
        if other["labels"] != dataset_json["labels"]:
            raise ValueError(
                f"Folds of a cross-validation must have the same labels; {folder} has {other['labels']} and "
                f"{predictions[0]} {dataset_json['labels']}. Evaluate them one by one."
            )
    examples = label_map_files(truths, dataset_json["file_ending"]).values()
    dataset = open_dataset(dataset_json, plans, examples)
    if not map_labels:
        return dataset
    places = (truths / DATASET, truths.resolve().parent / DATASET)  # beside the label maps, or as in nnUNet_raw
    truth_labels = next((read_description(file, ["labels"])["labels"] for file in places if file.is_file()), None)
    return replace(dataset, translation=parse_translation(map_labels, dataset_json["labels"], truth_labels))


def description_of(predictions: Path, described_by: DatasetFiles) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content of `dataset.json` and of `plans.json`; the latter is empty if there is none.

    Raises:
        FileNotFoundError: if `dataset.json`, or plans that were named, do not exist.
        ValueError: if one of them is not JSON, or `dataset.json` lacks labels or file ending.
    """
    dataset_file = described_by.dataset or first_file(predictions, DATASET)
    if dataset_file is None or not dataset_file.is_file():
        raise FileNotFoundError(
            f"Evaluation needs the {DATASET} of the predictions; {dataset_file or predictions / DATASET} does not "
            f"exist. Give it with -djfile; if the folders are swapped, put the truth first."
        )
    plans_file = described_by.plans or first_file(predictions, "plans.json")
    if plans_file is not None and not plans_file.is_file():
        raise FileNotFoundError(f"-pfile must be the model's plans.json; {plans_file} does not exist. Correct it.")
    plans = read_description(plans_file) if plans_file else {}
    return read_description(dataset_file, ("labels", "file_ending")), plans


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
    """First minus second, paired by case, for every figure and structure that both have.

    Raises:
        ValueError: if no case is in both, or the pattern of patients does not match a case.
    """
    others = {case.case: case for case in second.cases}
    pairs = [(case, others[case.case]) for case in first.cases if case.case in others]
    if not pairs:
        raise ValueError(
            "Two folders are compared on the cases that both have; found none. Give predictions of the same cases."
        )
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
