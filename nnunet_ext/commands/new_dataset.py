"""A new raw dataset that is made of another one."""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_ext.commands.training_cases import variable_folder


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


def seen_from(folder: Path, file: Path) -> str:
    """The path of a file that is not copied, for `dataset.json`; relative where both datasets move together."""
    return Path(os.path.relpath(file, folder)).as_posix() if file.is_relative_to(folder.parent) else str(file)
