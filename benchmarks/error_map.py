"""How well an error map, entropy and mutual information find wrong voxels and slices of held-out cases.

    python benchmarks/held_out_coverage.py DATA/Dataset004_Hippocampus 3d_fullres WORK --fit 45 --held-out 60
    python benchmarks/error_map.py WORK 4 3d_fullres --new-id 104 --error-configuration 2d --members samples:2

    python benchmarks/held_out_coverage.py DATA/Dataset027_ACDC 2d WORK --patients '(patient[0-9]+)_' \\
        -tr nnUNetTrainerCyclical2_NoDA_10epochs_60iters --members samples:2
    python benchmarks/error_map.py WORK 27 2d --new-id 127 --members samples:2 --patients '(patient[0-9]+)_' \\
        --segmentation nnUNetTrainerCyclical2_NoDA_10epochs_60iters --held-out 40

The second command takes the models that the first one trained, trains an error model on what their folds held out
(small plans, few iterations), predicts the held-out cases, judges them and evaluates all maps. What WORK has already
is not made again.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from held_out_coverage import PLANS
from workspace import linked, plan, run, use_workspace

from nnunet_ext.commands.evaluate import dataset_of
from nnunet_ext.evaluation.label_maps import read_label_map
from nnunet_ext.evaluation.wrong_slices import measured, slice_dice
from nnunet_ext.options import DatasetFiles

MAPS = ("entropy", "mutual_information")
MOST_CHANNELS, LARGEST_BATCH, LARGEST_SIDE = 64, 6, 128


def main() -> None:
    """Writes the dataset, trains, fits, predicts, applies, evaluates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="of held_out_coverage.py")
    parser.add_argument("dataset", type=int)
    parser.add_argument("configuration")
    parser.add_argument("--new-id", type=int, required=True)
    parser.add_argument("--segmentation", default="nnUNetTrainerCyclical2_10epochs_60iters", metavar="TRAINER")
    parser.add_argument("--members", default="samples:4", help="that segment the held-out cases")
    parser.add_argument("--patients", metavar="REGEX", default="(.*)")
    parser.add_argument("-tr", default="nnUNetTrainer_NoDA_5epochs_50iters", help="trainer of the error model")
    parser.add_argument("--folds", type=int, default=3, help="of the error model that are trained")
    parser.add_argument("--held-out", type=int, default=60, metavar="N", help="take the first N held-out cases")
    parser.add_argument("--error-configuration", metavar="C", help="of the error model (default: CONFIGURATION)")
    parser.add_argument("-device", default="cpu")
    options = parser.parse_args()
    raw, preprocessed, results = use_workspace(options.work)
    (source,) = raw.glob(f"Dataset{options.dataset:03d}_*")
    errors_by = options.error_configuration or options.configuration
    machine = ["-device", options.device, "--disable_progress_bar"]
    segmentation = ["-d", options.dataset, "-c", options.configuration, "-p", PLANS, "-tr", options.segmentation]
    if not list(raw.glob(f"Dataset{options.new_id:03d}_*")):
        run("nnunet_ext", "error-map", "dataset", *segmentation, "--new-id", options.new_id,
            "--patients", options.patients, *machine)  # fmt: skip
    (errors,) = raw.glob(f"Dataset{options.new_id:03d}_*")
    plans = preprocessed / errors.name / f"{PLANS}.json"
    if not plans.is_file():
        plan(options.new_id, errors_by, plans=PLANS)
        make_small(plans, errors_by)
    model = results / errors.name / f"{options.tr}__{PLANS}__{errors_by}"
    for fold in range(options.folds):
        if not (model / f"fold_{fold}" / "validation" / "summary.json").is_file():
            run("nnUNetv2_train", options.new_id, errors_by, fold, "-tr", options.tr, "-p", PLANS,
                "-device", options.device)  # fmt: skip
    run("nnunet_ext", "error-map", "fit", "-m", model, *machine)
    predictions = options.work / "segmented"
    images = linked(first_images(source, options.held_out), options.work / "images")
    run("nnunet_ext", "predict", "-i", images, "-o", predictions, *segmentation, *machine, "--disable_tta",
        "--members", options.members, "--maps", *MAPS, "--continue_prediction")  # fmt: skip
    run("nnunet_ext", "error-map", "apply", "-m", model, "-i", images, "-p", predictions, *machine)
    run("nnunet_ext", "evaluate", source / "labelsTs", predictions, "--disable_progress_bar", "-np", 1, "--chill")
    flagged = flagged_slices(source / "labelsTs", predictions, json.loads((model / "error_map.json").read_text()))
    print(f"threshold of the cross-validation: {flagged}")


def make_small(file: Path, configuration: str) -> None:
    """Fewer channels, a smaller batch and patch; the depth stays as planned."""
    plans = json.loads(file.read_text(encoding="utf-8"))
    planned = plans["configurations"][configuration]
    network = planned["architecture"]["arch_kwargs"]
    network["features_per_stage"] = [min(count, MOST_CHANNELS) // 2 for count in network["features_per_stage"]]
    planned["patch_size"] = [min(side, LARGEST_SIDE) for side in planned["patch_size"]]
    planned["batch_size"] = min(planned["batch_size"], LARGEST_BATCH)
    file.write_text(json.dumps(plans), encoding="utf-8")


def first_images(source: Path, count: int) -> list[Path]:
    """The images of the first held-out cases, all channels."""
    ending = json.loads((source / "dataset.json").read_text(encoding="utf-8"))["file_ending"]
    cases = [truth.name.removesuffix(ending) for truth in sorted((source / "labelsTs").iterdir())[:count]]
    return [image for case in cases for image in (source / "imagesTs").glob(f"{case}_????{ending}")]


def flagged_slices(truths: Path, predictions: Path, fitted: dict) -> str:
    """Recall and false alarms of the slices that `error_map.csv` flags."""
    dataset = dataset_of((predictions,), truths, DatasetFiles())
    flags, dice, cases = [], [], []
    for row in csv.DictReader((predictions / "error_map.csv").open(encoding="utf-8")):
        name = f"{row['case']}{dataset.file_ending}"
        truth, prediction = (read_label_map(folder / name, dataset.reader)[0] for folder in (truths, predictions))
        found = slice_dice(truth != prediction, prediction > 0, axis=dataset.stack_axis or 0)
        flagged = np.zeros(len(found))
        flagged[[int(number) for number in row["flagged_slices"].split(";") if number]] = 1
        flags.append(flagged)
        dice.append(found)
        whole = slice_dice((truth != prediction)[None], (prediction > 0)[None], axis=0)[0]
        cases.append((float(row["expected_dice"]), whole))
    found = measured(np.concatenate(flags), np.concatenate(dice), 0.5, failure_dice=fitted["failure_dice"])
    expected, true = np.array(cases).T
    return (
        f"recall {found.recall:.3f} of {found.wrong} wrong slices, {found.false_alarms:.3f} false alarms of "
        f"{found.right} right ones; expected Dice {expected.mean():.3f}, true {true.mean():.3f}, mean absolute error "
        f"{np.abs(expected - true).mean():.3f}, correlation {np.corrcoef(expected, true)[0, 1]:.3f}"
    )


if __name__ == "__main__":
    main()
