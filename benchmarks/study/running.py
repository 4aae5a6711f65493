"""Runs one cell: trains, fits, predicts, evaluates, and writes one JSON file."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from workspace import nnunet_folder

import nnunet_ext
from nnunet_ext.files.atomic import atomic_path

from .cells import Cell, result_file
from .data import PLANS, image_folders, number_of, patients_pattern
from .measures import judged
from .settings import HERE, ImageSet, Method, Preset, Study
from .trainings import Training, cpu_seconds_of, models_of, train, trainings_of

FIT_FILES = {"calibrate": "calibration.json", "weights": "weights.json", "postprocess": "postprocess.json"}
FIT_FLAGS = {"calibrate": "--calibrated", "weights": "--weights", "postprocess": "--postprocess"}


@dataclass(frozen=True)
class Places:
    """Where a study finds and puts its files, and what it puts there.

    Attributes:
        source: folder of raw datasets.
        work: folder for all that is trained and predicted.
        examples: also write a report page of each test set's worst cases, beside the cell's logs.
    """

    source: Path
    work: Path
    examples: bool = False


def run_cell(study: Study, cell: Cell, places: Places) -> None:
    """Trains what is not trained, fits, predicts and evaluates every test set, writes the result.

    Args:
        study: with the cell's method.
        cell: to run.
        places: of the study.
    """
    preset, method = study.preset, cell.method
    if method.teacher:
        teach(study, method, places.work)
    start = training_to_start_from(study, cell)
    training_seconds = train(start, preset) if start else 0.0
    training_seconds += sum(train(training, preset, start) for training in trainings_of(method, cell.seed))
    settings = study.settings_hash(method)
    folder = places.work / "cells" / study.name / f"{cell.name}_{settings}"
    folder.mkdir(parents=True, exist_ok=True)
    models = [word for model in models_of(method, cell.seed, preset) for word in ("-m", model)]
    folds: list[object] = ["-f", *method.folds]
    machine = ["-device", preset.device, "--disable_progress_bar"]
    fitted = fit(study, cell, folder, [*folds, *method.ensemble, *machine])
    words = [*models, *folds, *method.ensemble, *fitted, *machine]
    sets = {test.name: predicted_and_judged(preset, test, words, folder, places) for test in preset.tests}
    versions = {"nnunet_ext": nnunet_ext.__version__, "commit": commit(), "nnunetv2": version("nnunetv2"),
                "torch": torch.__version__}  # fmt: skip
    result = {"method": method.name, "seed": cell.seed, "settings": settings, "versions": versions,
              "training_cpu_s": round(training_seconds), "tests": sets}  # fmt: skip
    file = result_file(study, cell)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary:  # half a result would count as one that is done
        temporary.write_text(json.dumps(result, separators=(",", ":")) + "\n", encoding="utf-8")


def commit() -> str:
    """What this repository is at, with a plus if package or study have changes; empty outside of git."""
    git = ["git", "-C", str(HERE)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    code = [".", str(Path(nnunet_ext.__file__).parent)]
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *code], capture_output=True, check=False)
    return head.stdout.strip() + "+" * (changed.returncode == 1)


def predicted_and_judged(
    preset: Preset, test: ImageSet, words: Sequence[object], folder: Path, places: Places
) -> dict[str, Any]:
    """Predicts and evaluates a test set; the predictions are removed.

    Args:
        preset: of the study.
        test: the images.
        words: models and flags for `nnunet_ext predict`.
        folder: for logs, predictions and pages.
        places: of the study.

    Returns:
        See `judged`.
    """
    images, labels = image_folders(preset, test, places.source, places.work)
    predictions = folder / test.name.replace(" ", "_")
    shutil.rmtree(predictions, ignore_errors=True)
    # Probabilities of regions are not those of labels; all methods are compared by labels.
    probabilities = [] if preset.regions else ["--save_probabilities"]
    predict = ["nnunet_ext", "predict", "-i", images, "-o", predictions, *probabilities, *words]
    seconds = cpu_seconds_of(predict, folder / "predict.log")
    patients = patients_pattern(preset, test)
    evaluate = ["nnunet_ext", "evaluate", labels, predictions, "--patients", patients, "-np", 1]
    described = ["-djfile", places.source / preset.dataset / "dataset.json"] if preset.regions else []
    cpu_seconds_of([*evaluate, *described, "--disable_progress_bar"], folder / "evaluate.log")
    if places.examples:
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
