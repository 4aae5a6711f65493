"""The stock commands and ours on phantoms, with plans so small that one core trains them in seconds.

A process takes 5 seconds to import nnU-Net. So datasets and models are made once a session, each command is a process
of its own in one test, and everything else runs in this process, with nnU-Net's worker processes replaced by threads.

`labels/` and `regions/` have a dataset each, and no model of one is used by the other: two workers share the work.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import nibabel
import numpy as np
import pytest
import torch
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder2
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiments, preprocess
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.utilities import utils as nnunet_file_lists
from tiny_datasets import PLANS, Dataset, make_plans_tiny, write_splits

from nnunet_ext import cli, discovery

SECONDS_PER_COMMAND = 500
CPU = torch.device("cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs all tests of a folder: they share datasets and models that take long to make."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group(f"end_to_end/{item.path.relative_to(here).parts[0]}"))


@pytest.fixture(scope="session")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """nnU-Net's variables, all but nnUNet_extTrainer; the folders exist."""
    root = tmp_path_factory.mktemp("nnunet")
    folders = {name: root / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for folder in folders.values():
        folder.mkdir()
    return {name: str(folder) for name, folder in folders.items()} | {
        "nnUNet_n_proc_DA": "0",  # augmentation in line
        "nnUNet_def_n_proc": "1",
    }


@pytest.fixture(scope="session")
def run_command(variables: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_command(program, *arguments, **more_variables)`: a program of this environment in a process of its own.

    It must end with `status`, 0 unless said otherwise. The process sees nnU-Net's variables and no nnUNet_extTrainer,
    unless `more_variables` has one.
    """

    def run(
        program: str, *arguments: object, status: int = 0, **more_variables: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command_line(program, *arguments),
            env=clean_environment() | variables | more_variables,
            capture_output=True,
            text=True,
            timeout=SECONDS_PER_COMMAND,
        )
        assert done.returncode == status, f"{program} {arguments}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    return run


def command_line(program: str, *arguments: object) -> list[str]:
    """A console script beside the interpreter that runs the tests, with its arguments."""
    path = shutil.which(program, path=str(Path(sys.executable).parent))
    assert path is not None, f"{program} is not installed beside {sys.executable}"
    return [path, *map(str, arguments)]


def clean_environment() -> dict[str, str]:
    """This process's variables without nnU-Net's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")}


@pytest.fixture(scope="session")
def env_line(run_command: Callable[..., subprocess.CompletedProcess[str]]) -> dict[str, str]:
    """What the line that `nnunet_ext env` prints sets."""
    word, assignment = shlex.split(run_command("nnunet_ext", "env", "--shell", "sh").stdout)
    assert word == "export"
    name, _, value = assignment.partition("=")
    return {name: value}


@contextmanager
def nnunet_in_this_process(variables: dict[str, str], *, trainers: bool = True) -> Iterator[None]:
    """nnU-Net's variables for this process, on one thread and without processes of its own.

    Tiny networks lose more time to threads than they win, and the training curve takes longer than an epoch.
    """
    threads = torch.get_num_threads()
    environment = clean_environment() | variables | ({discovery.VARIABLE: discovery.path()} if trainers else {})
    # what a command sets in its environment and in sys.argv ends with it
    with mock.patch.dict(os.environ, environment, clear=True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", sys.argv)
        patch.setattr(multiprocessing, "get_context", lambda *_: SimpleNamespace(Pool=ThreadPool))
        patch.setattr(nnunet_file_lists, "Pool", ThreadPool)
        patch.setattr(MetaLogger, "plot_progress_png", lambda *_: None)
        patch.setattr(os, "cpu_count", lambda: 1)
        torch.set_num_threads(1)
        patch.setattr(torch, "set_num_threads", lambda _: None)  # both programs would take all cores
        try:
            yield
        finally:
            patch.undo()
            torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def plan_here(variables: dict[str, str], tiny_dataset: Callable[..., Dataset]) -> Callable[..., Dataset]:
    """`plan_here(raw, *configurations)`: what nnUNetv2_plan_and_preprocess does, with tiny plans, in this process."""

    def plan(raw: Path, *configurations: str) -> Dataset:
        with nnunet_in_this_process(variables | {"nnUNet_n_proc_DA": "1"}):  # planning divides by it
            extractor = DatasetFingerprintExtractor(raw.name, num_processes=1)
            extractor.num_foreground_voxels_for_intensitystats = 1e5  # nnU-Net draws 1e8: 10 seconds
            extractor.show_progress_bar = False
            extractor.run()
            number = dataset_number(raw)
            plan_experiments([number], gpu_memory_target_in_gb=1, overwrite_plans_name=PLANS)
            dataset = tiny_dataset(raw, coarser_3d=1.3)
            preprocess([number], PLANS, configurations, [1] * len(configurations), show_progress_bar=False)
        return dataset

    return plan


@pytest.fixture(scope="session")
def tiny_dataset(variables: dict[str, str]) -> Callable[..., Dataset]:
    """`tiny_dataset(raw)`: shrinks the plans that nnU-Net made for a raw dataset, and writes splits."""

    def shrink_plans(raw: Path, *, patch_size_2d: tuple[int, int] = (40, 40), coarser_3d: float = 1.0) -> Dataset:
        preprocessed = Path(variables["nnUNet_preprocessed"]) / raw.name
        make_plans_tiny(preprocessed, patch_size_2d=patch_size_2d, coarser_3d=coarser_3d)
        write_splits(raw, preprocessed)
        return Dataset(str(dataset_number(raw)), raw, Path(variables["nnUNet_results"]) / raw.name)

    return shrink_plans


def dataset_number(raw: Path) -> int:
    """XXX of DatasetXXX_NAME."""
    return int(raw.name[7:10])


@pytest.fixture(scope="session")
def train_here(variables: dict[str, str]) -> Callable[..., Any]:
    """`train_here(dataset, configuration, fold, trainer)`: what nnUNetv2_train does, in this process.

    `prepare(trainer)` may change the trainer before it starts.
    """

    def train(
        dataset: Dataset,
        configuration: str,
        fold: int | str,
        name: str,
        *,
        resume: bool = False,
        validate: bool = False,
        disable_checkpointing: bool = False,
        prepare: Callable[[Any], None] = lambda trainer: None,
    ) -> Any:
        with nnunet_in_this_process(variables):
            seed_everything()
            trainer = get_trainer_from_args(
                dataset.number, configuration, fold, name, dataset.plans, resume, device=CPU
            )
            trainer.disable_checkpointing = disable_checkpointing
            prepare(trainer)
            maybe_load_checkpoint(trainer, resume, False)
            trainer.run_training()
            if validate:
                trainer.perform_actual_validation()
        return trainer

    return train


def seed_everything() -> None:
    """The same training whatever ran before; batches depend on all three."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


@pytest.fixture(scope="session")
def run_here(variables: dict[str, str]) -> Callable[..., int]:
    """`run_here(*arguments)`: the exit status of `nnunet_ext` in this process, without nnUNet_extTrainer."""

    def run(*arguments: object, **more_variables: str) -> int:
        with nnunet_in_this_process(variables | more_variables, trainers=False):
            return cli.main(list(map(str, arguments)))

    return run


@pytest.fixture(scope="session")
def predict_here(run_here: Callable[..., int]) -> Callable[..., Path]:
    """`predict_here(images, output, *flags)`: `nnunet_ext predict` in this process, without nnUNet_extTrainer."""

    def predict(images: Path, output: Path, *flags: object, status: int = 0) -> Path:
        arguments = ["predict", "-i", images, "-o", output, "-device", "cpu", "--disable_progress_bar", *flags]
        assert run_here(*arguments) == status
        return output

    return predict


class StockWithFp32Sums(nnUNetPredictor):
    """Stock nnU-Net's predictor, but window and sums over tiles are fp32 instead of half precision."""

    def _internal_predict_sliding_window_return_logits(
        self, data: torch.Tensor, slicers: Sequence[tuple[Any, ...]], do_on_device: bool = True
    ) -> torch.Tensor:
        window = compute_gaussian(tuple(self.configuration_manager.patch_size), dtype=torch.float32, device=CPU)
        logits = torch.zeros((self.label_manager.num_segmentation_heads, *data.shape[1:]))
        weight = torch.zeros(data.shape[1:])
        for tile in slicers:
            logits[tile] += self._internal_maybe_mirror_and_predict(data[tile][None])[0] * window
            weight[tile[1:]] += window
        return logits / weight


@pytest.fixture(scope="session")
def predict_with_stock(variables: dict[str, str]) -> Callable[..., Path]:
    """`predict_with_stock(model, images, output)`: nnU-Net's own predictor in this process; files in `output`.

    With `trainers=False` it finds its own trainers only, as where this package is not installed.
    """

    def predict(
        model: Path,
        images: Path,
        output: Path,
        *,
        folds: Sequence[int | str] = (0,),
        checkpoint: str = "checkpoint_final.pth",
        fp32_sums: bool = False,
        save_probabilities: bool = False,
        previous_stage: Path | None = None,
        trainers: bool = True,
    ) -> Path:
        predictor_class = StockWithFp32Sums if fp32_sums else nnUNetPredictor
        output.mkdir(parents=True)
        with nnunet_in_this_process(variables, trainers=trainers):
            predictor = predictor_class(device=CPU, allow_tqdm=False)
            predictor.initialize_from_trained_model_folder(str(model), tuple(folds), checkpoint)
            predictor.predict_from_files_sequential(
                str(images),
                str(output),
                save_probabilities=save_probabilities,
                folder_with_segs_from_prev_stage=str(previous_stage) if previous_stage else None,
            )
        return output

    return predict


@pytest.fixture(scope="session")
def evaluate_with_stock(variables: dict[str, str]) -> Callable[[Path, Path, Path], None]:
    """`evaluate_with_stock(truths, predictions, file)`: what nnUNetv2_evaluate_folder does, in this process."""

    def evaluate(truths: Path, predictions: Path, file: Path) -> None:
        with nnunet_in_this_process(variables):
            compute_metrics_on_folder2(
                *(str(truths), str(predictions), str(predictions / "dataset.json"), str(predictions / "plans.json")),
                output_file=str(file),
                num_processes=1,
            )

    return evaluate


def read_labels(folder: Path) -> dict[str, np.ndarray]:
    """The segmentations of a folder by case, (x, y, z)."""
    return {
        path.name.removesuffix(".nii.gz"): np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj)
        for path in sorted(folder.glob("*.nii.gz"))
    }


@pytest.fixture(scope="session")
def labels_in() -> Callable[[Path], dict[str, np.ndarray]]:
    """`labels_in(folder)`: the segmentations of a folder by case, (x, y, z)."""
    return read_labels


@pytest.fixture(scope="session")
def agreement() -> Callable[[Path, Path], float]:
    """`agreement(folder, other)`: share of voxels with the same label, over all cases of two folders."""

    def share(folder: Path, other: Path) -> float:
        first, second = read_labels(folder), read_labels(other)
        assert first.keys() == second.keys()
        assert first
        return float(np.concatenate([(first[case] == second[case]).ravel() for case in first]).mean())

    return share


@pytest.fixture(scope="session")
def mean_dice() -> Callable[[Path, Path], float]:
    """`mean_dice(folder, other)`: Dice of labels 1 and 2 over all cases of two folders together, then their mean."""

    def dice(folder: Path, other: Path) -> float:
        first, second = read_labels(folder), read_labels(other)
        found, truth = (np.concatenate([labels[case].ravel() for case in first]) for labels in (first, second))
        overlaps = [
            2 * np.sum((found == label) & (truth == label)) / (np.sum(found == label) + np.sum(truth == label))
            for label in (1, 2)
        ]
        return float(np.mean(overlaps))

    return dice
