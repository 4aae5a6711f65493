"""What each step of a challenge entry's prediction gains on ACDC: transforms, weights, post-processing, adaptation.

    python benchmarks/prediction_playbook.py DATA/Dataset027_ACDC DATA/Dataset028_MnMsA WORK

Every third patient is held out; the rest is planned, trained in two folds of patients (2D and 3D, small networks) by
stock nnU-Net, and whatever is fitted is fitted on what the folds hold out. Both folds then predict the held-out
patients and the other scanner's cases in each way of `WAYS`; the error map is compared with entropy. What WORK has
already is not made again. Prints the tables of docs/methods/what-prediction-gains.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import resource
from collections.abc import Mapping
from pathlib import Path

from held_out_coverage import copy_cases
from small_plans import write_small
from workspace import linked, plan, run, use_workspace

PLANS = "nnUNetPlansSmall"
PATIENTS = "(patient[0-9]+)_"
ERRORS, ERROR_TRAINER = 127, "nnUNetTrainer_NoDA_10epochs_50iters"
TRAINERS = {"2d": "nnUNetTrainer_20epochs_100iters", "3d_fullres": "nnUNetTrainer_10epochs_100iters"}
NETWORKS = {
    "2d": {"features": [8, 16, 32, 64, 64], "patch_size": [128, 128], "batch_size": 6},
    "3d_fullres": {"features": [8, 16, 32, 64, 64], "patch_size": [10, 112, 112], "batch_size": 2},
}
OTHER_PATIENTS = "(.*)_E[DS]"
BASE = "2D, no transforms"
FIRST, BOTH = ("2d",), ("2d", "3d_fullres")
WAYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # models, flags of predict
    BASE: (FIRST, ("--tta", "none")),
    "2D, flips": (FIRST, ("--tta", "flips")),
    "2D, rot90": (FIRST, ("--tta", "rot90")),
    "2D, full": (FIRST, ("--tta", "full")),
    "3D, no transforms": (("3d_fullres",), ("--tta", "none")),
    "2D + 3D, equal weights": (BOTH, ("--tta", "none")),
    "2D + 3D, fitted weights": (BOTH, ("--tta", "none", "--weights", "weights.json")),
    "2D, post-processing": (FIRST, ("--tta", "none", "--postprocess", "postprocess.json")),
    "2D, adaptation": (FIRST, ("--tta", "none", "--adapt")),
}


def main() -> None:
    """Prepares, trains, fits, predicts, judges; prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="raw ACDC")
    parser.add_argument("other", type=Path, help="raw dataset of another scanner with the same labels")
    parser.add_argument("work", type=Path)
    parser.add_argument("--cases", type=int, default=20, help="of each set, the first in alphabetical order")
    parser.add_argument("-device", default="cpu")
    options = parser.parse_args()
    work = options.work.resolve()
    raw, preprocessed, results = (folder / options.dataset.name for folder in use_workspace(work))
    if not (raw / "dataset.json").is_file():
        copy_cases(options.dataset, raw, PATIENTS, every=3)
    prepare(preprocessed, int(raw.name[7:10]))
    models = {name: results / f"{trainer}__{PLANS}__{name}" for name, trainer in TRAINERS.items()}
    for name, model in models.items():
        train(model, int(raw.name[7:10]), name, TRAINERS[name], options.device)
    machine = ("-device", options.device, "--disable_progress_bar")
    fit(work, models, machine)
    error_model = fit_error_map(work, int(raw.name[7:10]), options.device, machine)
    sets = {
        "held-out patients": (raw / "imagesTs", raw / "labelsTs", PATIENTS),
        "other scanner": (options.other / "imagesTr", options.other / "labelsTr", OTHER_PATIENTS),
    }
    for where, (whole, truths, patients) in sets.items():
        images = linked(sorted(whole.iterdir())[: options.cases], work / f"first_{options.cases}_{slug(where)}")
        predicted = work / f"predictions_{options.cases}" / slug(where)
        folders = {way: predicted / slug(way) for way in WAYS}
        for way, folder in folders.items():
            if not (folder / "summary.json").is_file():
                of, flags = WAYS[way]
                files = [work / flag if flag.endswith(".json") else flag for flag in flags]
                chosen = [word for name in of for word in ("-m", models[name])]
                predict(folder, images, *chosen, *files, *machine)
                if way == BASE:
                    run("nnunet_ext", "error-map", "apply", "-m", error_model, "-i", images, "-p", folder, *machine)
                run("nnunet_ext", "evaluate", truths, folder, "--disable_progress_bar", "-np", 1, "--chill")
                for file in (*folder.glob("*.npz"), *folder.glob("*.pkl")):
                    file.unlink()
        groups = [word for way, folder in folders.items() for word in ("--group", way, folder)]
        compared = work / f"compare_{options.cases}_{slug(where)}"
        run("nnunet_ext", "compare", *groups, "--patients", patients, "-o", compared)
        tables = {"ways": table_of(folders, compared), "errors": found_errors(folders[BASE])}
        (predicted / "tables.md").write_text("\n\n".join(tables.values()) + "\n", encoding="utf-8")
        print(f"\n## {where}\n", *tables.values(), sep="\n\n", flush=True)


def prepare(preprocessed: Path, number: int) -> None:
    """Plans both configurations with small networks, preprocesses, splits the patients into two folds."""
    if not (preprocessed / "nnUNetPlans.json").is_file():
        plan(number, *TRAINERS)
    if not (preprocessed / f"{PLANS}.json").is_file():
        write_small(preprocessed / "nnUNetPlans.json", PLANS, NETWORKS)
    if not (preprocessed / "splits_final.json").is_file():
        run("nnunet_ext", "splits", "-d", number, "--patients", PATIENTS, "--folds", 2)


def train(model: Path, number: int, configuration: str, trainer: str, device: str) -> None:
    """Trains the folds that are missing."""
    for fold in range(2):
        if not (model / f"fold_{fold}" / "checkpoint_final.pth").is_file():
            run("nnUNetv2_train", number, configuration, fold, "-tr", trainer, "-p", PLANS, "-device", device)


def fit(work: Path, models: Mapping[str, Path], machine: tuple[str, ...]) -> None:
    """Fits weights and post-processing to what the folds hold out."""
    common = ("--tta", "none", "--patients", PATIENTS, *machine)
    if not (work / "weights.json").is_file():
        run("nnunet_ext", "weights", *models.values(), "-o", work / "weights.json", *common)
    if not (work / "postprocess.json").is_file():
        run("nnunet_ext", "postprocess", "-m", models["2d"], "-o", work / "postprocess.json", *common)


def fit_error_map(work: Path, number: int, device: str, machine: tuple[str, ...]) -> Path:
    """Trains the error model of the 2D segmentations; returns its folder."""
    preprocessed, results = work / "nnUNet_preprocessed", work / "nnUNet_results"
    if not list((work / "nnUNet_raw").glob(f"Dataset{ERRORS}_*")):
        run("nnunet_ext", "error-map", "dataset", "-d", number, "-c", "2d", "-p", PLANS, "-tr", TRAINERS["2d"],
            "--new-id", ERRORS, "--patients", PATIENTS, *machine)  # fmt: skip
    (errors,) = (work / "nnUNet_raw").glob(f"Dataset{ERRORS}_*")
    plans = preprocessed / errors.name / f"{PLANS}.json"
    if not plans.is_file():
        plan(ERRORS, "2d", plans=PLANS)
        write_small(plans, PLANS, {"2d": NETWORKS["2d"]})
    model = results / errors.name / f"{ERROR_TRAINER}__{PLANS}__2d"
    train(model, ERRORS, "2d", ERROR_TRAINER, device)
    if not (model / "error_map.json").is_file():
        run("nnunet_ext", "error-map", "fit", "-m", model, *machine)
    return model


def slug(title: str) -> str:
    """A title as a folder's name."""
    return re.sub("[^a-z0-9]+", "_", title.lower())


def predict(folder: Path, images: Path, *words: object) -> None:
    """Predicts and keeps the CPU seconds of the command beside the cases."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run("nnunet_ext", "predict", "-i", images, "-o", folder, "--save_probabilities", *words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime
    (folder / "cpu_seconds.json").write_text(json.dumps(seconds), encoding="utf-8")


def table_of(folders: Mapping[str, Path], compared: Path) -> str:
    """A row per way, with the paired interval of the difference in Dice to the first."""
    with (compared / "compare.csv").open(encoding="utf-8") as file:
        dice = {row["method"]: row for row in csv.DictReader(file) if row["figure"] == "mean_dice"}
    rows = ["| | Dice | difference | HD95 | ECE | AURC | CPU s per case |", "|---" * 7 + "|"]
    for way, folder in folders.items():
        found, row = figures(folder), dice[way]
        bounds = [float(row[name]) for name in ("difference", "low", "high") if row[name]]
        difference = "{:+.3f} ({:+.3f} to {:+.3f})".format(*bounds) if bounds else ""
        cells = [f"{found['dice']:.3f}", difference, f"{found['hd95']:.1f}", f"{found['ece']:.3f}"]
        cells += [f"{found['aurc']:.3f}", f"{found['seconds']:.1f}"]
        rows.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(rows)


def figures(folder: Path) -> dict[str, float]:
    """Of one way: means over the cases, AURC by the entropy in the foreground, distances in pixels."""
    found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["nnunet_ext"]
    seconds = json.loads((folder / "cpu_seconds.json").read_text(encoding="utf-8"))
    distances = [structure["hd95_mm"]["mean"] for structure in found["structures"].values()]
    return {
        "dice": found["case_figures"]["mean_dice"]["mean"],
        "hd95": sum(distances) / len(distances),
        "ece": found["case_figures"]["ece"]["mean"],
        "aurc": found["failure_detection"]["foreground_entropy"]["aurc"],
        "seconds": seconds / found["cases"],
    }


def found_errors(folder: Path) -> str:
    """A row per map: AUROC of wrong voxels, recall of wrong slices, AURC of the case's figure."""
    found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["nnunet_ext"]
    rows = ["| | AUROC of voxels | recall of wrong slices | AURC |", "|---" * 4 + "|"]
    for name, column in (("entropy", "foreground_entropy"), ("error", "expected_dice")):
        slices = found["wrong_slices"][name]
        auroc = found["case_figures"][f"{name}_error_auroc"]["mean"]
        recall = f"{slices['recall']:.2f} of {slices['wrong']}"
        rows.append(f"| {name} | {auroc:.3f} | {recall} | {found['failure_detection'][column]['aurc']:.3f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
