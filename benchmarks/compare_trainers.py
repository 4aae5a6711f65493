"""Compares trainers that differ in one part, trained on the same fold with the same seeds.

    python benchmarks/compare_trainers.py 4 3d_fullres -p nnUNetPlansStudy --trainers "" DS SDD SDE DSD \
        --suffix 20epochs_100iters --seeds 0 1 -device cpu -o study

Runs stock `nnUNetv2_train --npz` on a dataset that is already planned (`""` is plain nnU-Net), skips models that are
already trained, and has `nnunet_ext evaluate` and `nnunet_ext compare` judge the predictions of the final
validation, seed by seed as far as all trainers have it. nnU-Net's environment variables must be set.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunet_ext import discovery


def main() -> None:
    """Trains and evaluates whatever is missing, and prints the comparison after each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("-p", default="nnUNetPlans")
    parser.add_argument("-f", default="0")
    parser.add_argument("--trainers", nargs="+", default=["", "DSD"])
    parser.add_argument("--suffix", default="20epochs_100iters")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--patients", metavar="REGEX", default="(.*)")
    parser.add_argument("-device", default="cuda")
    parser.add_argument("-o", type=Path, default=Path("study"))
    options = parser.parse_args()
    groups: dict[str, list[Path]] = {part or "stock": [] for part in options.trainers}
    for seed in options.seeds:
        for part in options.trainers:
            trainer = trainer_name(part, options.suffix, seed)
            folder = options.o / trainer
            if not (folder / "case_metrics.csv").is_file():
                evaluate(train(options, trainer), folder)
            groups[part or "stock"].append(folder)
        words = [word for name, folders in groups.items() for word in ("--group", name, *folders)]
        run("nnunet_ext", "compare", *words, "--patients", options.patients, "-o", options.o)


def trainer_name(part: str, suffix: str, seed: int) -> str:
    """The name of a trainer, for example `nnUNetTrainerDSD_20epochs_100iters_member0`."""
    return "nnUNetTrainer" + "_".join([part, *filter(None, [suffix]), f"member{seed}"])


def train(options: argparse.Namespace, trainer: str) -> Path:
    """Trains one fold unless it is already trained; returns its validation folder."""
    model = get_output_folder(options.dataset, trainer, options.p, options.configuration)
    validation = Path(model) / f"fold_{options.f}" / "validation"
    if not (validation / "summary.json").is_file():
        run("nnUNetv2_train", options.dataset, options.configuration, options.f, "-tr", trainer, "-p", options.p,
            "-device", options.device, "--npz")  # fmt: skip
    return validation


def evaluate(validation: Path, folder: Path) -> None:
    """Metrics of each case of a validation folder, ECE included; the probabilities are removed afterwards."""
    truths = Path(nnUNet_preprocessed) / validation.parents[2].name / "gt_segmentations"
    run("nnunet_ext", "evaluate", truths, validation, "-o", folder, "--disable_progress_bar")
    for file in (*validation.glob("*.npz"), *validation.glob("*.pkl")):
        file.unlink()


def run(*words: object) -> None:
    """A command; what a training prints is left out, since nnU-Net keeps it in a log."""
    command = [str(word) for word in words]
    print("$", *command, flush=True)
    quiet = subprocess.DEVNULL if command[0] == "nnUNetv2_train" else None
    environment = os.environ | {discovery.VARIABLE: discovery.path()}
    if subprocess.run(command, env=environment, stdout=quiet).returncode:
        sys.exit(f"Failed: {' '.join(command)}")


if __name__ == "__main__":
    main()
