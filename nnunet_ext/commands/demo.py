"""The demo on synthetic hearts, end to end: data, planning, training, calibration, prediction, report."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

import nibabel
import numpy as np
from tqdm import tqdm

from nnunet_ext import discovery
from nnunet_ext.evaluation.overlap import mean_dice
from nnunet_ext.phantom import CARDIAC_LABELS, write_cardiac_dataset
from nnunet_ext.prediction_folder.case_table import read_cases
from nnunet_ext.report.contact_sheet import SheetRow, contact_sheet

DATASET_ID = 990
PLANS = "nnUNetPlansDemo"
CONFIGURATION = "2d"
EPOCHS = 20
ITERATIONS = 25
TRAINER = f"nnUNetTrainerCyclical2_Restart10_{EPOCHS}epochs_{ITERATIONS}iters"  # at 500 iterations better than 1
FEATURES = (16, 32, 64, 64, 64, 64, 64, 64)
PATCH_SIZE = (80, 96)  # smaller than the images: more heart and less background in a batch
BATCH_SIZE = 8
TRAINING_CASES = 26
VALIDATION_CASES = 10  # of them; calibration is fitted to these
INTERVAL_LEVEL = 0.8  # the highest that ten patients allow, in round numbers
TEST_CASES_PER_VENDOR = 3
LOG_LINES_SHOWN = 15

Say = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One command of the demo.

    Attributes:
        name: name of its log file.
        title: title that is printed.
        command: command line of the process.
        total: how often `counted` will appear in the log, for a progress bar; 0 for no bar.
        counted: text to count in the log.
    """

    name: str
    title: str
    command: list[str]
    total: int = 0
    counted: str = ""


@dataclass(frozen=True)
class DemoCase:
    """A test case with its results: volumes (z, y, x) and its row of the table."""

    name: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    entropy: np.ndarray
    mutual_information: np.ndarray
    row: Mapping[str, str]

    @property
    def dice(self) -> float:
        """Mean over the foreground labels."""
        return mean_dice(self.prediction, self.truth, [label for label in CARDIAC_LABELS.values() if label])


def run_demo(folder: Path, *, say: Say) -> None:
    """Runs the demo in `folder`; about four minutes on two CPU cores.

    Args:
        folder: created if missing; results of an earlier demo are overwritten.
        say: prints a line.

    Raises:
        FileExistsError: if the folder has predictions that are not of a demo.
        RuntimeError: if a step fails; names the step and its log, and shows the end of the log.
    """
    start = time.monotonic()
    folder = folder.resolve()
    predictions = folder / "predictions"
    if predictions.exists() and not list((folder / "nnUNet_raw").glob(f"Dataset{DATASET_ID}_*")):
        raise FileExistsError(
            f"The demo replaces what an earlier demo wrote; {predictions} is not of one. Choose another folder "
            f"with -o."
        )
    environment = demo_environment(folder)
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        Path(environment[variable]).mkdir(parents=True, exist_ok=True)
    say(f"Synthetic hearts: {TRAINING_CASES - VALIDATION_CASES} to train on, {VALIDATION_CASES} to calibrate on,")
    say(f"{2 * TEST_CASES_PER_VENDOR} to predict, half of them from a scanner without training data (vendor_b).")
    dataset = write_cardiac_dataset(
        environment["nnUNet_raw"],
        dataset_id=DATASET_ID,
        training_cases=TRAINING_CASES,
        test_cases=TEST_CASES_PER_VENDOR,
    )
    shutil.rmtree(predictions, ignore_errors=True)  # of an earlier demo, which had other members
    steps = demo_steps(dataset, folder)
    for number, step in enumerate(steps, 1):
        run_step(step, folder / "logs", environment, label=f"[{number}/{len(steps)}]", say=say)
        if step.name == "plan":
            shrink_network(Path(environment["nnUNet_preprocessed"]) / dataset.name / f"{PLANS}.json")
            write_split(dataset, Path(environment["nnUNet_preprocessed"]) / dataset.name / "splits_final.json")
    cases = list(read_results(dataset, folder / "predictions"))
    draw_sheet(cases, folder / "contact_sheet.png")
    for line in [*case_lines(cases), "", *uncertainty_lines(cases)]:
        say(line)
    say(f"\nDone in {time.monotonic() - start:.0f} s. Results:")
    say(f"  {shown(folder / 'report.html')}            the report: verdicts, worst cases first, metrics")
    say(f"  {shown(folder / 'contact_sheet.png')}      image, ground truth, prediction and uncertainty maps")
    say(f"  {shown(folder / 'predictions' / 'cases.csv')}  one row per case")
    say(f"  {shown(folder / 'predictions' / 'maps')}       uncertainty maps, to overlay on the images in any viewer")


def demo_environment(folder: Path) -> dict[str, str]:
    """The environment variables of the demo's processes; those of this process do not change."""
    return {
        **os.environ,
        "nnUNet_raw": str(folder / "nnUNet_raw"),
        "nnUNet_preprocessed": str(folder / "nnUNet_preprocessed"),
        "nnUNet_results": str(folder / "nnUNet_results"),
        discovery.VARIABLE: discovery.path(),
        "nnUNet_def_n_proc": "2",
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait slow down a machine with other work
    }


def demo_steps(dataset: Path, folder: Path) -> list[Step]:
    """The commands, as you would type them for your own dataset."""
    dataset_id = str(DATASET_ID)
    predictions = str(folder / "predictions")
    common = ["-d", dataset_id, "-p", PLANS, "-tr", TRAINER, "-c", CONFIGURATION, "-f", "0"]
    return [
        Step("fingerprint", "Dataset fingerprint", [*stock("extract_fingerprint"), "-d", dataset_id, "-np", "2"]),
        Step(
            "plan",
            "Experiment plan, for a network that a CPU can train",
            [*stock("plan_experiment"), "-d", dataset_id, "-gpu_memory_target", "1", "-overwrite_plans_name", PLANS],
        ),
        Step(
            "preprocess",
            "Preprocessing",
            [*stock("preprocess"), "-d", dataset_id, "-plans_name", PLANS, "-c", CONFIGURATION, "-np", "2"],
        ),
        Step(
            "train",
            f"nnUNetv2_train {dataset_id} {CONFIGURATION} 0 -tr {TRAINER}",
            [*stock("train"), dataset_id, CONFIGURATION, "0", "-tr", TRAINER, "-p", PLANS, "-device", "cpu"],
            total=EPOCHS,
            counted="Epoch time",
        ),
        Step(
            "calibrate",
            "nnunet_ext calibrate --members samples",
            [*own("calibrate"), *common, "--members", "samples", "--level", str(INTERVAL_LEVEL), "-device", "cpu"],
        ),
        Step(
            "predict",
            "nnunet_ext predict --members samples --maps entropy mutual_information --calibrated",
            [*own("predict"), "-i", str(dataset / "imagesTs"), "-o", predictions, *common, "--members", "samples",
             "--maps", "entropy", "mutual_information", "--save_probabilities", "--calibrated", "-device", "cpu"],
        ),
        Step(
            "report",
            "nnunet_ext report --gt labelsTs",
            [*own("report"), predictions, "--gt", str(dataset / "labelsTs"), "-o", str(folder / "report.html"),
             "-np", "1"],
        ),
    ]  # fmt: skip


def own(command: str) -> list[str]:
    """A command of this package."""
    return [sys.executable, "-m", "nnunet_ext", command]


def stock(command: str) -> list[str]:
    """A stock `nnUNetv2_<command>` by its entry point, which needs no PATH on any system."""
    (entry,) = entry_points(group="console_scripts", name=f"nnUNetv2_{command}")
    module, function = entry.value.split(":")
    return [sys.executable, "-c", f"from {module} import {function} as main; main()"]


def run_step(step: Step, logs: Path, environment: Mapping[str, str], *, label: str, say: Say) -> None:
    """Runs a command with its output in `logs/<name>.log`.

    Raises:
        RuntimeError: if it fails.
    """
    say(f"{label} {step.title}")
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{step.name}.log"
    # planning needs at least one process for augmentation; training on a CPU needs none
    own = {"nnUNet_n_proc_DA": "0" if step.name == "train" else "1"}
    start = time.monotonic()
    with log.open("wb") as output, tqdm(total=step.total, disable=not step.total, unit="epoch", leave=False) as bar:
        process = subprocess.Popen(step.command, stdout=output, stderr=subprocess.STDOUT, env={**environment, **own})
        while process.poll() is None:
            time.sleep(0.2)
            done = log.read_bytes().count(step.counted.encode()) if step.total else 0
            if done > bar.n:
                bar.update(done - bar.n)
    if process.returncode:
        end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:])
        raise RuntimeError(f"The step {step.name!r} failed; its log is {log} and ends with\n{end}")
    say(f"      {time.monotonic() - start:.0f} s")


def shrink_network(plans_file: Path) -> None:
    """Sets fewer features and a smaller patch than nnU-Net planned: the demo takes minutes and no GPU."""
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    for configuration in plans["configurations"].values():
        if "architecture" in configuration:
            if len(configuration["patch_size"]) == len(PATCH_SIZE):
                configuration |= {"patch_size": list(PATCH_SIZE), "batch_size": BATCH_SIZE}
            sizes = configuration["architecture"]["arch_kwargs"]
            sizes["features_per_stage"] = list(FEATURES[: sizes["n_stages"]])
    plans_file.write_text(json.dumps(plans, indent=4), encoding="utf-8")


def write_split(dataset: Path, file: Path) -> None:
    """One fold with more validation cases than nnU-Net would hold out: calibration is fitted to them."""
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (dataset / "labelsTr").glob("*.nii.gz"))
    split = {"train": cases[:-VALIDATION_CASES], "val": cases[-VALIDATION_CASES:]}
    file.write_text(json.dumps([split], indent=4), encoding="utf-8")


def read_results(dataset: Path, predictions: Path) -> Iterator[DemoCase]:
    """The test cases with their predictions, in the order of the table."""
    for row in read_cases(predictions / "cases.csv"):
        name = row["case"]
        yield DemoCase(
            name=name,
            image=read_volume(dataset / "imagesTs" / f"{name}_0000.nii.gz"),
            truth=read_volume(dataset / "labelsTs" / f"{name}.nii.gz"),
            prediction=read_volume(predictions / f"{name}.nii.gz"),
            entropy=read_volume(predictions / "maps" / "entropy" / f"{name}.nii.gz"),
            mutual_information=read_volume(predictions / "maps" / "mutual_information" / f"{name}.nii.gz"),
            row=row,
        )


def read_volume(path: Path) -> np.ndarray:
    """Voxels of a NIfTI file as (z, y, x)."""
    image = cast(nibabel.Nifti1Image, nibabel.load(path))
    return np.asarray(image.dataobj).transpose(2, 1, 0)


def draw_sheet(cases: Sequence[DemoCase], path: Path) -> None:
    """The contact sheet of all cases."""
    rows = [
        SheetRow(
            title=f"{case.name}\nDice {case.dice:.2f}",
            image=case.image,
            truth=case.truth,
            prediction=case.prediction,
            entropy=case.entropy,
            mutual_information=case.mutual_information,
        )
        for case in cases
    ]
    contact_sheet(rows, {label: name for name, label in CARDIAC_LABELS.items() if label}, path)


def case_lines(cases: Sequence[DemoCase]) -> list[str]:
    """The table of cases as text."""
    lines = ["", "case           Dice  predicted Dice  pairwise Dice  verdict"]
    for case in cases:
        predicted = case.row["predicted_dice"]  # empty outside the range of the calibration cases
        lines.append(
            f"{case.name:13} {case.dice:5.2f}  {f'{float(predicted):.2f}' if predicted else 'no estimate':>14}"
            f"  {float(case.row['pairwise_dice']):13.3f}  {case.row['verdict']}"
        )
    return lines


def uncertainty_lines(cases: Sequence[DemoCase]) -> list[str]:
    """Whether the entropy is higher where the segmentation is wrong."""
    wrong = np.concatenate([case.entropy[case.prediction != case.truth] for case in cases])
    right = np.concatenate([case.entropy[case.prediction == case.truth] for case in cases])
    if wrong.size == 0:
        return ["Every voxel is correct; there is no error to detect."]
    return [
        f"Mean entropy: {wrong.mean():.3f} where the segmentation is wrong, {right.mean():.3f} where it is right."
    ]


def shown(path: Path) -> str:
    """A path relative to the current folder if it is inside it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
