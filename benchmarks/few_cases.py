"""Whether pre-training without labels helps where few cases have labels: fine-tuned against from scratch.

    python benchmarks/few_cases.py DATA/Dataset004_Hippocampus 3d_fullres WORK --pretrain S3D

Stock nnU-Net plans the dataset (small networks). `nnunet_ext pretrain` sees the images of fold 0's training cases
without labels. Fold 0 is then trained on 10 and on 40 of these cases, with the same number of iterations and two
seeds each, and judged on its validation cases. What WORK has already is not made again.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

from small_plans import write_small
from workspace import linked, plan, run, use_workspace

PLANS = "nnUNetPlansSmall"
DYNAMIC_PLANS = "nnUNetPlans"  # those that nnU-Net made of the dataset
NETWORK = {"patch_size": [32, 40, 32], "batch_size": 2, "features": [8, 16, 32, 64]}
STOCK = "stock"  # stands for nnU-Net's own schedule
FOLDS = 5
SCANS = 900


def main() -> None:
    """Prepares, pre-trains, trains, compares; prints a comparison per number of cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="a raw dataset")
    parser.add_argument("configuration")
    parser.add_argument("work", type=Path)
    parser.add_argument("--pretrain", nargs="+", default=["S3D"], metavar="PART", help="how to pre-train")
    parser.add_argument("--pretrain-suffix", default="30epochs_100iters")
    parser.add_argument("--finetune", nargs="+", default=["Finetune3", STOCK], metavar="PART",
                        help=f"how to start from its weights; {STOCK}: with nnU-Net's schedule")  # fmt: skip
    parser.add_argument("--dynamic", action="store_true",
                        help="also from scratch with nnU-Net's own plans, whose networks are large")  # fmt: skip
    parser.add_argument("--suffix", default="20epochs_100iters")
    parser.add_argument("--cases", nargs="+", type=int, default=[10, 40])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--patients", metavar="REGEX", default="(.*)")
    parser.add_argument("-device", default="cpu")
    options = parser.parse_args()
    work = options.work.resolve()
    raw, preprocessed, _ = (folder / options.dataset.name for folder in use_workspace(work))
    if not raw.exists():
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.symlink_to(options.dataset.resolve())
    splits = prepare(preprocessed, options)
    scans = linked(images_of(raw, splits[0]["train"]), work / "scans")
    checkpoints = {part: pretrain(part, scans, preprocessed / f"{PLANS}.json", options) for part in options.pretrain}
    ways: dict[str, tuple[str, str, list[object]]] = {"scratch": ("nnUNetTrainer", PLANS, [])}
    if options.dynamic:
        ways["dynamic plans"] = ("nnUNetTrainer", DYNAMIC_PLANS, [])
    for part, checkpoint in checkpoints.items():
        for finetune in options.finetune:
            trainer = "nnUNetTrainer" + finetune.removeprefix(STOCK)
            ways[f"{part} {finetune}"] = (trainer, PLANS, ["-pretrained_weights", checkpoint])
    for seed in options.seeds:
        for cases in options.cases:
            fold = next(position for position, split in enumerate(splits) if len(split["train"]) == cases)
            for way, (trainer, plans, weights) in ways.items():
                name = f"{trainer}_{options.suffix}_member{seed}"
                validation = train(name, plans, fold, weights, work / "models" / way, options)
                evaluate(validation, plans, preprocessed, work / f"{cases} {way} {seed}")
    for cases in options.cases:
        words = [
            word
            for way in ways
            for word in ("--group", way, *(work / f"{cases} {way} {seed}" for seed in options.seeds))
        ]
        run("nnunet_ext", "compare", *words, "--patients", options.patients, "-o", work / f"compare_{cases}")


def prepare(preprocessed: Path, options: argparse.Namespace) -> list[dict[str, list[str]]]:
    """Plans, preprocesses, splits; returns the splits, those with few cases last."""
    number = int(preprocessed.name[7:10])
    if not (preprocessed / "nnUNetPlans.json").is_file():
        plan(number, options.configuration)
    if not (preprocessed / f"{PLANS}.json").is_file():
        write_small(preprocessed / "nnUNetPlans.json", PLANS, {options.configuration: NETWORK})
    if not (preprocessed / "splits_final.json").is_file():
        by_patient = ["nnunet_ext", "splits", "-d", number, "--patients", options.patients]
        run(*by_patient, "--folds", FOLDS)
        for cases in options.cases:
            run(*by_patient, "--cases", cases)
    return json.loads((preprocessed / "splits_final.json").read_text(encoding="utf-8"))


def images_of(raw: Path, cases: list[str]) -> Iterator[Path]:
    """The files of some cases, all channels."""
    for path in sorted((raw / "imagesTr").iterdir()):
        if re.sub(r"_\d{4}\..*$", "", path.name) in cases:
            yield path


def pretrain(part: str, scans: Path, plans: Path, options: argparse.Namespace) -> Path:
    """Pre-trains unless it is done; returns the checkpoint with the lowest loss on held-out scans."""
    trainer = f"nnUNetTrainer{part}_{options.pretrain_suffix}"
    results = options.work.resolve() / "nnUNet_results"
    found = sorted(results.glob(f"Dataset{SCANS}_*/{trainer}__*/fold_0/checkpoint_final.pth"))
    if not found:
        run("nnunet_ext", "pretrain", "-i", scans, "-d", f"Dataset{SCANS}_Scans", "--plans", plans,
            "-c", options.configuration, "-tr", trainer, "-device", options.device, "-npp", 1,
            "--disable_progress_bar")  # fmt: skip
        found = sorted(results.glob(f"Dataset{SCANS}_*/{trainer}__*/fold_0/checkpoint_final.pth"))
    return found[0].with_name("checkpoint_best.pth")


def train(
    trainer: str, plans: str, fold: int, weights: list[object], kept: Path, options: argparse.Namespace
) -> Path:
    """Trains one fold unless it is kept; moves its model where the next way cannot overwrite it."""
    folder = kept / f"{trainer}_fold_{fold}"
    if not (folder / "validation" / "summary.json").is_file():
        number = int(options.dataset.name[7:10])
        run("nnUNetv2_train", number, options.configuration, fold, "-tr", trainer, "-p", plans, "-device",
            options.device, *weights)  # fmt: skip
        trained = options.work.resolve() / "nnUNet_results" / options.dataset.name
        folder.parent.mkdir(parents=True, exist_ok=True)
        (trained / f"{trainer}__{plans}__{options.configuration}" / f"fold_{fold}").rename(folder)
    return folder / "validation"


def evaluate(validation: Path, plans: str, preprocessed: Path, folder: Path) -> None:
    """Metrics of each case of a validation folder."""
    if not (folder / "case_metrics.csv").is_file():
        files = ["-djfile", preprocessed / "dataset.json", "-pfile", preprocessed / f"{plans}.json"]
        run("nnunet_ext", "evaluate", preprocessed / "gt_segmentations", validation, *files, "-o", folder, "--chill",
            "--disable_progress_bar", "-np", 1)  # fmt: skip


if __name__ == "__main__":
    main()
