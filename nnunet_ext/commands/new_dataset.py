"""A new raw dataset that is made of another one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.commands.training_cases import splits_file, variable_folder
from nnunet_ext.files.atomic import PARTIAL_PREFIX
from nnunet_ext.files.writable import require_writable


def new_folder(number: int, name: str) -> Path:
    """The folder of a new dataset in `nnUNet_raw`, which does not exist yet.

    Raises:
        FileExistsError: if a dataset has that number.
        ValueError: if the variable is not set.
    """
    prefix = f"Dataset{number:03d}_"
    there = sorted(
        path
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        if os.environ.get(variable)
        for path in Path(os.environ[variable]).glob(f"{prefix}*")
    )
    if there:
        raise FileExistsError(f"--new-id must be free; {there[0]} has {number}. Choose another number.")
    return variable_folder("nnUNet_raw") / f"{prefix}{name}"


@dataclass(frozen=True)
class NewDataset:
    """Where a new dataset is written.

    Attributes:
        folder: of the raw dataset, which appears when everything is written.
        staging: what it is until then.
        splits: file of its splits.
    """

    folder: Path
    staging: Path
    splits: Path


@contextmanager
def new_dataset(number: int, name: str) -> Iterator[NewDataset]:
    """Makes a raw dataset and the folder of its splits, both or none: nnU-Net would split the cases at random.

    Raises:
        FileExistsError: if a dataset has that number.
        OSError: if one of nnU-Net's folders takes no files.
        ValueError: if a variable is not set.
    """
    folder = new_folder(number, name)
    splits = splits_file(folder.name)
    made = NewDataset(folder, folder.with_name(f"{PARTIAL_PREFIX}{folder.name}"), splits)
    require_writable(folder, "Set nnUNet_raw to a writable folder.")
    try:
        require_writable(splits, "Set nnUNet_preprocessed to a writable folder.")
        shutil.rmtree(made.staging, ignore_errors=True)  # of a killed run
        yield made
        made.staging.rename(folder)
    except BaseException:
        shutil.rmtree(splits.parent, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(made.staging, ignore_errors=True)


def seen_from(folder: Path, file: Path) -> str:
    """The path of a file that is not copied, for `dataset.json`; relative where both datasets move together."""
    return Path(os.path.relpath(file, folder)).as_posix() if file.is_relative_to(folder.parent) else str(file)
