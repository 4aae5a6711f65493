"""One stock training: which it is, where its model lies, and what it cost."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from workspace import nnunet_folder

from .data import PLANS, number_of
from .settings import Method, Preset


@dataclass(frozen=True)
class Training:
    """A trainer's parts, a seed and a fold, a number or "all"."""

    parts: str
    seed: int
    fold: int | str

    def trainer(self, preset: Preset) -> str:
        """Its trainer, such as `nnUNetTrainerDSD_24epochs_100iters_member0`."""
        return "nnUNetTrainer" + "_".join([self.parts, *filter(None, [preset.length]), f"member{self.seed}"])

    def model(self, preset: Preset) -> Path:
        """Folder of the model, which other folds of the same seed share."""
        results = nnunet_folder("results") / preset.dataset
        return results / f"{self.trainer(preset)}__{PLANS}__{preset.configuration}"


def trainings_of(method: Method, seed: int) -> Iterator[Training]:
    """What a cell trains: with two members each, seed 1 has the members 2 and 3."""
    for parts in method.trainers:
        for member in range(method.members):
            for fold in method.folds:
                yield Training(parts, seed * method.members + member, fold)


def models_of(method: Method, seed: int, preset: Preset) -> list[Path]:
    """The model folders of a cell, each once."""
    return list(dict.fromkeys(training.model(preset) for training in trainings_of(method, seed)))


def train(training: Training, preset: Preset, start: Training | None = None) -> float:
    """Trains unless it is done; several processes may ask for the same one.

    Args:
        training: to run.
        preset: of the study.
        start: a training that is done, from whose weights this one starts.

    Returns:
        CPU seconds of the training, validation included.
    """
    model = training.model(preset)
    model.mkdir(parents=True, exist_ok=True)
    cost = model / f"fold_{training.fold}_cpu_seconds.json"
    with FileLock(model / f"fold_{training.fold}.lock"):
        if not cost.is_file():
            # nnunet_ext's command fits the weights of one network to several classifiers.
            command = ["nnunet_ext", "train"] if start else ["nnUNetv2_train"]
            words = [*command, number_of(preset.dataset), preset.configuration, training.fold, "-tr",
                     training.trainer(preset), "-p", PLANS, "-device", preset.device]  # fmt: skip
            if (model / f"fold_{training.fold}" / "checkpoint_latest.pth").is_file():
                words.append("--c")
            elif start:
                words += ["-pretrained_weights", start.model(preset) / f"fold_{start.fold}" / "checkpoint_final.pth"]
            seconds = cpu_seconds_of(words, model / f"fold_{training.fold}.log")
            cost.write_text(json.dumps(seconds), encoding="utf-8")
        return float(json.loads(cost.read_text(encoding="utf-8")))


def cpu_seconds_of(words: list[object], log: Path) -> float:
    """Runs a command and returns the CPU seconds of it and of what it waited for; its output goes to a file.

    The process ends with the command's last words if it fails.
    """
    command = [str(word) for word in words]
    print("$", *command, flush=True)
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"Failed: {' '.join(command)}\n" + "".join(log.read_text(encoding="utf-8").splitlines(True)[-15:]))
    return total_seconds(usage)


def total_seconds(usage: resource.struct_rusage) -> float:
    """User and system time."""
    return usage.ru_utime + usage.ru_stime
