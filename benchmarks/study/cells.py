"""One cell of a study: a method with one seed, trained, predicted, evaluated, and written as one JSON file."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from workspace import nnunet_folder

import nnunet_ext
from nnunet_ext.evaluation.runs import read_run

from .data import PLANS, image_folders, number_of, patients_pattern
from .settings import HERE, ImageSet, Method, Preset, Study
from .trainings import Training, cpu_seconds_of, models_of, train, trainings_of

RESULTS = HERE / "results"
CASE_FIGURES = ("mean_dice", "ece", "ace", "brier", "nll", "end_slice_dice_paper", "end_slice_dice_strict")
STRUCTURE_FIGURES = ("hd95_mm", "nsd")
UNCERTAINTY = "foreground_entropy"  # of each case, for the curves of risk over coverage
FIT_FILES = {"calibrate": "calibration.json", "weights": "weights.json", "postprocess": "postprocess.json"}
FIT_FLAGS = {"calibrate": "--calibrated", "weights": "--weights", "postprocess": "--postprocess"}


@dataclass(frozen=True)
class Cell:
    """A method with a seed."""

    method: Method
    seed: int

    @property
    def name(self) -> str:
        """For files: `cyclical_all_modes_0`."""
        return f"{re.sub('[^a-z0-9]+', '_', self.method.name.lower()).strip('_')}_{self.seed}"


def result_file(study: Study, cell: Cell, results: Path = RESULTS) -> Path:
    """Where a cell's result lies in the repository."""
    return results / study.name / f"{cell.name}.json"


def take_over(study: Study, cell: Cell, results: Path = RESULTS) -> bool:
    """Copies the result of another preset in which the cell is the same, by the hash of its settings.

    Returns:
        Whether the cell has a result now.
    """
    file = result_file(study, cell, results)
    for other in [] if file.is_file() else sorted(results.glob(f"*/{cell.name}.json")):
        if json.loads(other.read_text(encoding="utf-8"))["settings"] == study.settings_hash(cell.method):
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(other, file)
            break
    return file.is_file()


def cells_of(study: Study) -> list[Cell]:
    """All cells; the first seed of every method before the second of any."""
    return [Cell(method, seed) for seed in study.preset.seeds for method in study.methods]


def run_cell(study: Study, cell: Cell, source: Path, work: Path, examples: bool = False) -> None:
    """Trains what is not trained, fits, predicts and evaluates every test set, writes the result.

    Args:
        study: with the cell's method.
        cell: to run.
        source: folder of raw datasets.
        work: folder for all that is trained and predicted.
        examples: also write a report page of each test set's worst cases, beside the cell's logs.
    """
    preset, method = study.preset, cell.method
    if method.teacher:
        teach(study, method, work)
    start = training_to_start_from(study, cell)
    training_seconds = train(start, preset) if start else 0.0
    training_seconds += sum(train(training, preset, start) for training in trainings_of(method, cell.seed))
    folder = work / "cells" / study.name / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    models = [word for model in models_of(method, cell.seed, preset) for word in ("-m", model)]
    folds: list[object] = ["-f", *method.folds]
    machine = ["-device", preset.device, "--disable_progress_bar"]
    fitted = fit(study, cell, folder, [*folds, *method.ensemble, *machine])
    words = [*models, *folds, *method.ensemble, *fitted, *machine]
    sets = {
        test.name: predicted_and_judged(preset, test, words, folder, source, work, examples) for test in preset.tests
    }
    versions = {"nnunet_ext": nnunet_ext.__version__, "nnunetv2": version("nnunetv2"), "torch": torch.__version__}
    result = {"method": method.name, "seed": cell.seed, "settings": study.settings_hash(method), "versions": versions,
              "training_cpu_s": round(training_seconds), "tests": sets}  # fmt: skip
    file = result_file(study, cell)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, separators=(",", ":")) + "\n", encoding="utf-8")


def predicted_and_judged(
    preset: Preset,
    test: ImageSet,
    words: Sequence[object],
    folder: Path,
    source: Path,
    work: Path,
    examples: bool = False,
) -> dict[str, Any]:
    """Predicts and evaluates a test set; the predictions are removed.

    Args:
        preset: of the study.
        test: the images.
        words: models and flags for `nnunet_ext predict`.
        folder: for logs and predictions.
        source: folder of raw datasets.
        work: of the study, for the test images.
        examples: also write a report page with the truth's outlines, beside the predictions.

    Returns:
        See `judged`.
    """
    images, labels = image_folders(preset, test, source, work)
    predictions = folder / test.name.replace(" ", "_")
    shutil.rmtree(predictions, ignore_errors=True)
    # Probabilities of regions are not those of labels; all methods are compared by labels.
    probabilities = [] if preset.regions else ["--save_probabilities"]
    predict = ["nnunet_ext", "predict", "-i", images, "-o", predictions, *probabilities, *words]
    seconds = cpu_seconds_of(predict, folder / "predict.log")
    patients = patients_pattern(preset, test)
    evaluate = ["nnunet_ext", "evaluate", labels, predictions, "--patients", patients, "-np", 1]
    described = ["-djfile", source / preset.dataset / "dataset.json"] if preset.regions else []
    cpu_seconds_of([*evaluate, *described, "--disable_progress_bar"], folder / "evaluate.log")
    if examples:
        page = predictions.with_suffix(".html")
        cpu_seconds_of(["nnunet_ext", "report", predictions, "--gt", labels, "-o", page, *described,
                        "--disable_progress_bar"], folder / "report.log")  # fmt: skip
    found = judged(predictions, seconds)
    shutil.rmtree(predictions)
    return found


def fit(study: Study, cell: Cell, folder: Path, ensemble: list[object]) -> list[object]:
    """Fits to the cases that the folds held out, with what was fitted before; returns the flags to predict."""
    words: list[object] = []
    models = models_of(cell.method, cell.seed, study.preset)
    for command, flags in cell.method.fit.items():
        file = folder / FIT_FILES[command]
        named: list[object] = list(models) if command == "weights" else [w for model in models for w in ("-m", model)]
        if not file.is_file():
            cpu_seconds_of(["nnunet_ext", command, *named, *ensemble, *words, *flags, "--patients",
                            study.preset.patients, "-o", file], folder / f"{command}.log")  # fmt: skip
        words += [FIT_FLAGS[command], file]
    return words


def training_to_start_from(study: Study, cell: Cell) -> Training | None:
    """The training, of the same seed, whose weights a cell starts from; None if it starts from random ones."""
    if not cell.method.starts_from:
        return None
    return next(trainings_of(study.method(cell.method.starts_from), cell.seed))


def teach(study: Study, student: Method, work: Path) -> None:
    """Writes the teacher's probabilities beside the preprocessed cases, once for all students."""
    preset = study.preset
    teacher = study.method(student.teacher)
    seed = preset.seeds[0]
    done = nnunet_folder("preprocessed") / preset.dataset / "teacher.txt"
    with FileLock(work / "teacher.lock"):
        if not done.is_file():
            for training in trainings_of(teacher, seed):
                train(training, preset)
            models = [word for model in models_of(teacher, seed, preset) for word in ("-m", model)]
            cpu_seconds_of(["nnunet_ext", "teach", "-d", number_of(preset.dataset), "-c", preset.configuration, "-p",
                            PLANS, *models, "-f", *teacher.folds, *teacher.ensemble, "--patients", preset.patients,
                            "-device", preset.device, "--disable_progress_bar"], work / "teach.log")  # fmt: skip
            done.write_text(teacher.name + "\n", encoding="utf-8")
        taught_by = done.read_text(encoding="utf-8").strip()
        if taught_by != teacher.name:
            raise ValueError(f"All students of a study need the same teacher; found {taught_by} and {teacher.name}.")


def judged(predictions: Path, seconds: float) -> dict[str, Any]:
    """What `nnunet_ext evaluate` found: figures of each case, and those of the whole set."""
    found = json.loads((predictions / "summary.json").read_text(encoding="utf-8"))["nnunet_ext"]
    run = read_run(predictions)
    with (predictions / "cases.csv").open(encoding="utf-8", newline="") as file:
        uncertainties = {row["case"]: float(row.get(UNCERTAINTY) or "nan") for row in csv.DictReader(file)}
    structures = {name: [f"{structure} {name}" for structure in found["structures"]] for name in STRUCTURE_FIGURES}
    cases = {
        case: [
            *(rounded(run.figures.get(name, {}).get(case)) for name in CASE_FIGURES),
            *(mean_of([rounded(run.figures[column][case]) for column in columns]) for columns in structures.values()),
            rounded(uncertainties[case]),
        ]
        for case in run.figures[CASE_FIGURES[0]]
    }
    detection = {
        name: {figure: rounded(values.get(figure)) for figure in ("aurc", "failure_auroc", "spearman")}
        for name, values in found["failure_detection"].items()
    }
    bins = found["reliability"] or {}  # none of regions
    return {
        "columns": [*CASE_FIGURES, *STRUCTURE_FIGURES, UNCERTAINTY],
        "cases": cases,
        "pooled_dice": {name: rounded(value) for name, value in found["pooled_dice"].items()},
        "end_coefficient": found["end_coefficient"],
        "failure_detection": detection,
        "verdicts": found["verdicts"],
        "reliability": {name: [rounded(value) for value in column] for name, column in bins.items()},
        "cpu_s_per_case": round(seconds / found["cases"], 2),
    }


def rounded(value: float | None) -> float | None:
    """To four significant digits, so that results stay small."""
    return None if value is None or value != value else float(f"{value:.4g}")


def mean_of(values: Sequence[float | None]) -> float | None:
    """Of those that are there."""
    there = [value for value in values if value is not None]
    return rounded(sum(there) / len(there)) if there else None
