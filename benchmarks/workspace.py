"""The folder that a benchmark works in: nnU-Net's three folders, planning, commands, links to images."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from nnunet_ext import discovery


def use_workspace(work: Path) -> tuple[Path, Path, Path]:
    """`nnUNet_raw`, `nnUNet_preprocessed` and `nnUNet_results` in a folder, for all commands that follow.

    Trainings find this package's trainers, and load without worker processes.
    """
    folders = {name: work.resolve() / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    variables = {name: str(folder) for name, folder in folders.items()}
    os.environ |= variables | {discovery.VARIABLE: discovery.path(), "nnUNet_n_proc_DA": "0"}
    raw, preprocessed, results = folders.values()
    return raw, preprocessed, results


def nnunet_folder(kind: str) -> Path:
    """nnU-Net's folder of that kind: raw, preprocessed or results."""
    return Path(os.environ[f"nnUNet_{kind}"])


def plan(dataset: int, *configurations: str, plans: str | None = None, planner: str | None = None) -> None:
    """Has nnU-Net plan and preprocess a dataset; `plans` is another name for the plans, `planner` another class."""
    name = ["-overwrite_plans_name", plans] if plans else []
    name += ["-pl", planner] if planner else []
    run("nnUNetv2_plan_and_preprocess", "-d", dataset, "-c", *configurations, "-np", 1, "-npfp", 1, "--no_pbar",
        *name, nnUNet_n_proc_DA="1")  # planning divides by it  # fmt: skip


def linked(files: Iterable[Path], folder: Path) -> Path:
    """A folder with links to files; those that are there stay."""
    folder.mkdir(exist_ok=True)
    for file in files:
        if not (folder / file.name).exists():
            (folder / file.name).symlink_to(file.resolve())
    return folder


def run(*words: object, **variables: str) -> None:
    """A command; what it prints goes where this script prints."""
    command = [str(word) for word in words]
    print("$", *command, flush=True)
    if subprocess.run(command, env=os.environ | variables).returncode:
        sys.exit(f"Failed: {' '.join(command)}")
