"""Checks that two versions of the package write the same bytes: phantoms, tiny models, one prediction of each kind.

    python benchmarks/same_predictions.py make WORK              # once: datasets, plans and models
    PYTHONPATH=BEFORE python benchmarks/same_predictions.py predict WORK OUT_BEFORE
    PYTHONPATH=AFTER  python benchmarks/same_predictions.py predict WORK OUT_AFTER
    python benchmarks/same_predictions.py compare OUT_BEFORE OUT_AFTER

BEFORE and AFTER are checkouts of the package; `predict` prints which one it uses. `--only KIND ...` predicts or
compares some of the kinds. The script uses only the commands and not the modules behind them, so that it survives
changes of the package's structure. The models are made once, and both versions predict with the same files.

Everything runs on one core, so that sums are always added in the same order. Results are reproducible only on the
same kind of processor with the same PyTorch, so both are recorded. `compare` compares images, tables and calibrations
byte by byte, `.npz` and `.pkl` files by their contents and `predict_args.json` by the members' hashes. It exits with
status 1 if a file differs or is in one folder only.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pickle
import random
import re
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

PLANS = "nnUNetPlansTiny"
PREVIOUS_STAGE = "previous_stage"  # segmentations of the test images by the cascade's first stage
HEART, TUMOUR, IGNORE = 951, 952, 953  # classes; regions with an ignore label; classes with an ignore label
RAW_NAMES = {HEART: "Dataset951_SameHeart", TUMOUR: "Dataset952_SameTumour", IGNORE: "Dataset953_SameIgnore"}

CYCLICAL = "nnUNetTrainerCyclical2_12epochs_25iters"  # samples the last two epochs of each cycle
SHORT = "nnUNetTrainer_3epochs_40iters"
ALL_MAPS = "--maps entropy mutual_information expected_entropy variance confidence"

# By dataset and configuration: features, patch, spacing in mm (unlike that of any image), first stride, batch size.
# The heart has thick slices, so that nnU-Net resamples across slices separately.
TUMOUR_3D = ([4, 8, 8], [24, 24, 24], [1.3, 1.2, 1.2], [2, 2, 2], 2)
TINY: dict[int, dict[str, tuple[list[int], list[int], list[float], list[int], int]]] = {
    HEART: {
        "2d": ([8, 16, 32], [64, 64], [2.0, 2.1], [2, 2], 6),
        "3d_fullres": ([4, 8, 16], [8, 48, 48], [7.0, 2.3, 2.2], [1, 2, 2], 2),
    },
    TUMOUR: {"2d": ([8, 16, 32], [32, 32], [1.2, 1.3], [2, 2], 6), "3d_fullres": TUMOUR_3D},
    IGNORE: {"3d_fullres": TUMOUR_3D},
}


@dataclass(frozen=True)
class Model:
    """A model folder to train: the folds of one trainer and configuration."""

    dataset: int
    trainer: str
    configuration: str
    folds: tuple[int | str, ...]

    def folder(self, work: Path) -> Path:
        """The model folder that training writes."""
        return work / "nnUNet_results" / RAW_NAMES[self.dataset] / f"{self.trainer}__{PLANS}__{self.configuration}"


MODELS = {
    "heart_2d": Model(HEART, CYCLICAL, "2d", (0, 1)),
    "heart_3d": Model(HEART, "nnUNetTrainer_1epoch", "3d_fullres", (0, 1)),
    "streaming": Model(HEART, "nnUNetTrainerStreaming_DiceFocal_3epochs_40iters", "2d", (0, 1)),
    "dropout": Model(HEART, "nnUNetTrainerMCDropout_3epochs_40iters", "2d", (0,)),
    "regions_2d": Model(TUMOUR, CYCLICAL, "2d", (0, 1)),
    "lowres": Model(TUMOUR, SHORT, "3d_lowres", ("all",)),
    "cascade": Model(TUMOUR, SHORT, "3d_cascade_fullres", (0, 1)),
    "ignore_3d": Model(IGNORE, SHORT, "3d_fullres", (0, 1)),
}


@dataclass(frozen=True)
class Kind:
    """One kind of prediction: names in MODELS, flags of `predict`, and flags of `calibrate` if that runs first."""

    models: str
    flags: str = ""
    calibrate: str | None = None


EVERYTHING = f"{ALL_MAPS} --save_probabilities --save_members"
KINDS = {
    "folds": Kind("heart_2d", EVERYTHING),
    "one_fold": Kind("heart_2d", "-f 1"),
    "best": Kind("heart_2d", "-chk checkpoint_best.pth"),
    "samples": Kind("heart_2d", f"--members samples -f 0 {EVERYTHING}"),
    "samples_of_folds": Kind("heart_2d", f"--members samples:3 {ALL_MAPS}"),
    "last_cycle": Kind("heart_2d", "--members last-cycle:2 --maps none"),
    "tta_members": Kind("heart_2d", f"-f 0 --tta-members {EVERYTHING}"),
    "without_tta": Kind("heart_2d", "--disable_tta -step_size 0.75 --save_probabilities"),
    "averaged_logits": Kind("heart_2d", f"--average logits {EVERYTHING}"),
    "averaged_logits_of_regions": Kind("regions_2d", f"--average logits {EVERYTHING}"),
    "separate_z": Kind("heart_3d", EVERYTHING),
    "weighted_folders": Kind("heart_2d heart_3d", f"--weights 1 3 {EVERYTHING}"),
    "weighted_folders_of_a_fold": Kind("heart_2d streaming", f"-f 0 --weights 3 1 {ALL_MAPS}"),
    "regions": Kind("regions_2d", f"--members samples {EVERYTHING}"),
    "regions_tta_members": Kind("regions_2d", f"-f 0 --tta-members {ALL_MAPS}"),
    "ignore_label": Kind("ignore_3d", EVERYTHING),
    "lowres": Kind("lowres", EVERYTHING),
    "cascade": Kind("cascade", EVERYTHING),
    "streaming": Kind("streaming", EVERYTHING),
    "streaming_tta_members": Kind("streaming", f"-f 0 --tta-members {ALL_MAPS}"),
    "mc_dropout": Kind("dropout", f"--members mc-dropout:3 {EVERYTHING}"),
    "calibrated": Kind("heart_2d", EVERYTHING, "--miss-rate 0.3"),
    "calibrated_samples": Kind("heart_2d", "--members samples", "--members samples --temperature per-class"),
    "calibrated_regions": Kind("regions_2d", EVERYTHING, "--miss-rate 0.3 --level 0.7"),
    "calibrated_streaming": Kind("streaming", ALL_MAPS, ""),
    "calibrated_folders": Kind("heart_2d heart_3d", f"--weights 2 1 {EVERYTHING}", "--weights 2 1"),
    "early_exit_label": Kind("heart_2d", f"--members samples --early-exit label {ALL_MAPS}"),
    "early_exit_information": Kind("heart_2d", f"--members samples --early-exit information {ALL_MAPS}"),
    "early_exit_of_regions": Kind("regions_2d", f"--members samples --early-exit label {ALL_MAPS}"),
    "early_exit_of_folders": Kind("heart_2d heart_3d", f"--early-exit label {ALL_MAPS}"),
    "fast_resampling": Kind("heart_2d", f"--members samples -f 0 --fast-resampling {EVERYTHING}"),
    "fast_resampling_separate_z": Kind("heart_3d", f"--fast-resampling {EVERYTHING}"),
    "fast_resampling_of_regions": Kind("lowres", f"--fast-resampling {EVERYTHING}"),
    "half_maps": Kind("heart_2d", f"{ALL_MAPS} --map-dtype float16"),
    "byte_maps": Kind("regions_2d", f"{ALL_MAPS} --map-dtype uint8"),
    "bfloat16": Kind("ignore_3d", f"--precision bf16 {ALL_MAPS}"),
}


# --- make: datasets, plans, models ---


def make(work: Path) -> None:
    """Writes and plans the datasets and trains the models, except those that are already trained."""
    use_folders(work)
    if not (work / "planned").exists():
        write_datasets(work / "nnUNet_raw")
        plan_datasets(work / "nnUNet_preprocessed")
        (work / "planned").touch()
    for name, model in MODELS.items():
        for fold in model.folds:
            if not (model.folder(work) / f"fold_{fold}" / "trained").exists():
                print(f"Training {name}, fold {fold}", flush=True)
                train(model, fold)
                (model.folder(work) / f"fold_{fold}" / "trained").touch()
    if not (work / PREVIOUS_STAGE).exists():  # made once, so that the first stage does not affect the cascade's kind
        shutil.rmtree(work / "unfinished", ignore_errors=True)
        predict_kind(KINDS["lowres"], work, work / "unfinished")
        (work / "unfinished").rename(work / PREVIOUS_STAGE)


def use_folders(work: Path) -> None:
    """Sets nnU-Net's environment variables, which it reads at import, for this process."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (work / name).mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(work / name)
    os.environ |= {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}  # augmentation in the main process


def write_datasets(raw: Path) -> None:
    """Writes hearts, the second image with a margin of zeros, and tumours; 2 test images per dataset."""
    from nnunet_ext.phantom import write_cardiac_dataset, write_regions_dataset

    cases = 6  # of training
    heart = write_cardiac_dataset(raw, dataset_id=HEART, name="SameHeart", training_cases=cases, test_cases=1)
    write_regions_dataset(raw, dataset_id=TUMOUR, name="SameTumour", training_cases=cases)
    write_regions_dataset(raw, dataset_id=IGNORE, name="SameIgnore", training_cases=cases, regions=False)
    for folder in ("imagesTr", "imagesTs"):
        path = sorted((heart / folder).iterdir())[1]
        image = nibabel.Nifti1Image.from_filename(path)
        values = np.zeros_like(image.dataobj)  # (x, y, z)
        values[9:-9, 9:-9] = image.dataobj[9:-9, 9:-9]  # nnU-Net crops the rest away
        nibabel.save(nibabel.Nifti1Image(values, image.affine, image.header), path)


def plan_datasets(preprocessed: Path) -> None:
    """Plans and preprocesses as nnUNetv2_plan_and_preprocess, with tiny networks and spacings that no image has."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as planning

    os.environ.update(nnUNet_n_proc_DA="1")  # planning divides by it
    planning.extract_fingerprints(list(RAW_NAMES), num_processes=1, verbose=False, clean=True)
    planning.plan_experiments(list(RAW_NAMES), gpu_memory_target_in_gb=1, overwrite_plans_name=PLANS)
    os.environ.update(nnUNet_n_proc_DA="0")
    for dataset, name in RAW_NAMES.items():
        path = preprocessed / name / f"{PLANS}.json"
        plans = json.loads(path.read_text(encoding="utf-8"))
        make_tiny(dataset, plans["configurations"])
        path.write_text(json.dumps(plans), encoding="utf-8")
        trained = {model.configuration for model in MODELS.values() if model.dataset == dataset}
        configurations = sorted({word.replace("cascade_", "") for word in trained})  # a cascade uses fullres data
        planning.preprocess([dataset], PLANS, configurations, [1] * len(configurations), show_progress_bar=False)
        write_splits(preprocessed / name)


def make_tiny(dataset: int, configurations: dict[str, Any]) -> None:
    """Reduces networks to three stages, the fewest for deep supervision; adds a cascade to the tumour datasets."""
    for name, (features, patch, spacing_mm, first_stride, batch_size) in TINY[dataset].items():
        configuration, dimensions = configurations[name], len(patch)
        configuration |= {"patch_size": patch, "spacing": spacing_mm, "batch_size": batch_size}
        configuration["architecture"]["arch_kwargs"] |= {
            "n_stages": 3,
            "features_per_stage": features,
            "kernel_sizes": [[3] * dimensions] * 3,
            "strides": [[1] * dimensions, first_stride, [2] * dimensions],
            "n_conv_per_stage": [1, 1, 1],
            "n_conv_per_stage_decoder": [1, 1],
        }
    if dataset != HEART:
        identifier = f"{PLANS}_3d_lowres"
        lowres = {"spacing": [1.9, 1.8, 1.8], "data_identifier": identifier, "next_stage": "3d_cascade_fullres"}
        configurations["3d_lowres"] = {"inherits_from": "3d_fullres", **lowres}
        configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}


def write_splits(folder: Path) -> None:
    """Writes two folds in which every case is held out once, so that calibration can use all of them."""
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "gt_segmentations").iterdir())
    splits = [{"train": sorted(set(cases) - set(held)), "val": held} for held in (cases[::2], cases[1::2])]
    (folder / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")


def train(model: Model, fold: int | str) -> None:
    """Trains as nnUNetv2_train does; the final validation runs only for the first stage of a cascade."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    name, value = shlex.split(command_output("env", "--shell", "sh"))[1].split("=", 1)
    os.environ[name] = value  # tells nnU-Net where to find the trainers of this package
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    trainer = get_trainer_from_args(
        str(model.dataset), model.configuration, fold, model.trainer, PLANS, device=torch.device("cpu")
    )
    trainer.run_training()
    if "next_stage" in trainer.configuration_manager.configuration:  # the next stage trains on these predictions
        trainer.perform_actual_validation()


# --- predict: one folder per kind ---


def predict(work: Path, output: Path, kinds: Sequence[str]) -> int:
    """Predicts all kinds with the package that Python imports; returns how many kinds failed."""
    use_folders(work)
    import torch

    import nnunet_ext

    print(f"Package: {Path(nnunet_ext.__file__).parent}", flush=True)
    output.mkdir(parents=True, exist_ok=True)
    machine = f"{torch.backends.cpu.get_cpu_capability()}, PyTorch {torch.__version__}"
    (output / "machine.txt").write_text(machine, encoding="utf-8")
    failed = 0
    for name in kinds:
        shutil.rmtree(output / name, ignore_errors=True)
        started, outcome = time.perf_counter(), ""
        try:
            predict_kind(KINDS[name], work, output / name)
        except (Exception, SystemExit):  # noqa: BLE001 - one failing kind must not prevent the others
            failed, outcome = failed + 1, f"FAILED\n{traceback.format_exc()}"
        print(f"{name}: {time.perf_counter() - started:.1f} s {outcome}".rstrip(), flush=True)
    return failed


def predict_kind(kind: Kind, work: Path, output: Path) -> None:
    """Calibrates if the kind says so, then predicts; all files are written to `output`."""
    output.mkdir(parents=True)
    models = [MODELS[name] for name in kind.models.split()]
    common = [part for model in models for part in ("-m", model.folder(work))]
    common += ["-device", "cpu", "--disable_progress_bar"]
    if any("cascade" in model.configuration for model in models):
        common += ["-prev_stage_predictions", work / PREVIOUS_STAGE]
    flags: list[object] = [*kind.flags.split()]
    if kind.calibrate is not None:
        file = output / "calibration.json"
        command_output("calibrate", *common, *kind.calibrate.split(), "-o", file)
        flags += ["--calibrated", file]
    images = work / "nnUNet_raw" / RAW_NAMES[models[0].dataset] / "imagesTs"
    command_output("predict", "-i", images, "-o", output, *common, *flags)


def command_output(*arguments: object) -> str:
    """Runs a command in this process, because importing nnU-Net takes seconds, and returns what it prints."""
    from nnunet_ext import cli

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = cli.main([str(argument) for argument in arguments])
    if status != 0:
        raise RuntimeError(f"nnunet_ext {shlex.join(map(str, arguments))} exits with {status}:\n{printed.getvalue()}")
    return printed.getvalue()


# --- compare ---


def compare(first: Path, second: Path, kinds: Sequence[str]) -> int:
    """Prints one line per kind; returns how many kinds differ."""
    machines = {(folder / "machine.txt").read_text(encoding="utf-8") for folder in (first, second)}
    if len(machines) > 1:
        print(f"Warning: predicted on different machines, {' and '.join(sorted(machines))}")
    different = 0
    for kind in kinds:
        differences = list(differing_files(first / kind, second / kind))
        different += bool(differences)
        more = f" (and {len(differences) - 1} more files)" if len(differences) > 1 else ""
        print(f"{kind}: {differences[0] + more if differences else f'same, {len(files_of(first / kind))} files'}")
    return different


def files_of(folder: Path) -> list[Path]:
    """All files below a folder, relative to it; calibrations first, because predictions depend on them."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: (path.name != "calibration.json", path))


def differing_files(first: Path, second: Path) -> Iterator[str]:
    """Describes each file that differs between the folders or is in one of them only."""
    ours, theirs = files_of(first), files_of(second)
    if not any(file.name == "cases.csv" for file in ours + theirs):
        yield "no cases.csv in either folder"
    for file in ours:
        if difference := difference_of(first / file, second / file) if file in theirs else "missing":
            yield f"{file}: {difference}"
    yield from (f"{file}: new" for file in theirs if file not in ours)


def difference_of(first: Path, second: Path) -> str | None:
    """Describes the first difference between two files; None if there is none."""
    if first.name == "predict_args.json":
        hashes = [re.findall(r'"sha256": *"(\w+)"', path.read_text(encoding="utf-8")) for path in (first, second)]
        return None if hashes[0] == hashes[1] else "other members"
    if first.suffix == ".npz":
        return difference_of_arrays(*(dict(np.load(path)) for path in (first, second)))
    if first.read_bytes() == second.read_bytes():
        return None
    if first.suffix == ".pkl":  # equal objects need not be stored as the same bytes
        contents = [repr(pickle.loads(path.read_bytes())) for path in (first, second)]
        return None if contents[0] == contents[1] else "other properties"
    if first.name.endswith(".nii.gz"):
        images = (nibabel.Nifti1Image.from_filename(path) for path in (first, second))
        values = [{"voxels": np.asarray(image.dataobj)} for image in images]
        return difference_of_arrays(*values) or "same voxels, another header or compression"
    if first.suffix in (".csv", ".json"):
        lines = zip(*(path.read_text(encoding="utf-8").splitlines() for path in (first, second)), strict=False)
        ours, theirs = next((pair for pair in lines if pair[0] != pair[1]), ("", "another number of lines"))
        start = next((k for k, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), 0)
        return f"{ours[max(0, start - 30) :][:80]!r} became {theirs[max(0, start - 30) :][:80]!r}"
    return "other bytes"


def difference_of_arrays(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> str | None:
    """Describes the first array that differs; None if there is none."""
    if first.keys() != second.keys():
        return f"arrays {', '.join(first)} became {', '.join(second)}"
    for name, ours in first.items():
        theirs = second[name]
        forms = [f"{array.dtype} {array.shape}" for array in (ours, theirs)]
        if forms[0] != forms[1]:
            return f"{name}: {forms[0]} became {forms[1]}"
        if ours.tobytes() != theirs.tobytes():
            differ = np.count_nonzero(ours != theirs)
            largest = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max()
            return f"{differ} of {ours.size} {name} differ, by {largest:.2g} at most"
    return None


def main() -> int:
    """Runs one of the three steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("make", "predict", "compare"))
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="WORK; WORK OUT; OUT_A OUT_B")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    options = parser.parse_args()
    folders = [folder.resolve() for folder in options.folders]
    if len(folders) != (1 if options.step == "make" else 2):
        parser.error("make takes WORK, predict takes WORK and OUT, compare takes OUT_A and OUT_B")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:  # start again on one: libraries and the command take as many threads as they find cores
        os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})
        os.execv(sys.executable, sys.orig_argv)
    if options.step == "make":
        make(folders[0])
        return 0
    step = predict if options.step == "predict" else compare
    return 1 if step(folders[0], folders[1], options.only) else 0


if __name__ == "__main__":
    sys.exit(main())
