"""Compares trainers that differ in one part, trained on the same fold with the same seeds.

    python benchmarks/study.py 4 3d_fullres -p nnUNetPlansStudy --trainers "" DS SDD SDE DSD
        --suffix 20epochs_100iters --seeds 0 1 -device cpu [-o study.json]

Runs stock `nnUNetv2_train` on a dataset that is already planned (`""` is plain nnU-Net), skips models that are
already trained, and evaluates the predictions of the final validation. The table has the mean over cases and labels,
averaged over seeds, with the smallest and the largest mean of a seed. nnU-Net's environment variables must be set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path
from statistics import fmean

import nibabel
import numpy as np
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunet_ext import discovery
from nnunet_ext.evaluation.overlap import dice
from nnunet_ext.evaluation.surface import hausdorff_mm


def trainer_name(part: str, suffix: str, seed: int) -> str:
    """The name of a trainer, for example `nnUNetTrainerDSD_20epochs_100iters_member0`."""
    return "nnUNetTrainer" + "_".join([part, *filter(None, [suffix]), f"member{seed}"])


def train(options: argparse.Namespace, trainer: str) -> Path:
    """Trains one fold unless it is already trained; returns its validation folder."""
    model = get_output_folder(options.dataset, trainer, options.p, options.configuration)
    validation = Path(model) / f"fold_{options.f}" / "validation"
    if not (validation / "summary.json").is_file():
        subprocess.run(
            ["nnUNetv2_train", options.dataset, options.configuration, options.f,
             "-tr", trainer, "-p", options.p, "-device", options.device],
            check=True,
            env=os.environ | {discovery.VARIABLE: discovery.path()},
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return validation


def case_figures(prediction_file: Path, truth_file: Path, labels: list[int]) -> list[dict[str, float]]:
    """Dice and HD95 in mm of each label of a case."""
    truth_image = nibabel.load(truth_file)
    truth, prediction = np.asarray(truth_image.dataobj), np.asarray(nibabel.load(prediction_file).dataobj)
    spacing_mm = [float(size) for size in truth_image.header.get_zooms()]
    return [
        {
            "dice": dice(prediction == label, truth == label),
            "hd95_mm": hausdorff_mm(prediction == label, truth == label, spacing_mm),
        }
        for label in labels
    ]


def main() -> None:
    """Trains, evaluates, prints a table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("-p", default="nnUNetPlans")
    parser.add_argument("-f", default="0")
    parser.add_argument("--trainers", nargs="+", default=["", "DSD"])
    parser.add_argument("--suffix", default="20epochs_100iters")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("-device", default="cuda")
    parser.add_argument("-o", type=Path, default=Path("study.json"))
    options = parser.parse_args()
    folders = {
        (part, seed): train(options, trainer_name(part, options.suffix, seed))
        for seed in options.seeds
        for part in options.trainers
    }
    truths = Path(next(iter(folders.values()))).parents[1]
    labels = [value for value in json.loads((truths / "dataset.json").read_text())["labels"].values() if value]
    truth_folder = Path(nnUNet_preprocessed) / truths.parent.name / "gt_segmentations"
    cases = sorted(
        set.intersection(*({path.name for path in folder.glob("*.nii.gz")} for folder in folders.values()))
    )
    figures = {
        key: [row for case in cases for row in case_figures(folder / case, truth_folder / case, labels)]
        for key, folder in folders.items()
    }
    table = {}
    print(f"{len(cases)} cases\n{'trainer':12}{'Dice':>26}{'HD95, mm':>32}")
    for part in options.trainers:
        row = {
            figure: [float(np.nanmean([entry[figure] for entry in figures[part, seed]])) for seed in options.seeds]
            for figure in ("dice", "hd95_mm")
        }
        table[part or "nnU-Net"] = row
        print(f"{part or 'nnU-Net':12}" + f"{spread(row['dice']):>26}{spread(row['hd95_mm']):>32}")
    options.o.write_text(json.dumps({"cases": len(cases), "seeds": options.seeds, "table": table}, indent=2))


def spread(values: list[float]) -> str:
    """Mean and range over seeds."""
    return f"{fmean(values):.4f} ({min(values):.4f}-{max(values):.4f})"


if __name__ == "__main__":
    main()
