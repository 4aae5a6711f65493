"""Resolves the model folders that a command works on. Does not import torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunet_ext.models.trained import closest_first, trained_models
from nnunet_ext.options import ModelChoice

SHOWN_MODELS = 5


def absolute_folders(folders: Sequence[Path]) -> list[Path]:
    """The folders with their names, by which a calibration knows its models: `.` and `..` have none."""
    return [Path(os.path.abspath(folder)) for folder in folders]  # noqa: PTH100 - a link keeps its own name


def chosen_model_folders(choice: ModelChoice) -> list[Path]:
    """The chosen `TRAINER__PLANS__CONFIGURATION` folders: those given as paths, or one in `nnUNet_results`.

    Raises:
        FileNotFoundError: if the dataset has trained models, but not this one; the message lists the most similar.
    """
    if choice.folders:
        return absolute_folders(choice.folders)
    folder = Path(get_output_folder(choice.dataset, choice.trainer, choice.plans, choice.configuration))
    trained = closest_first(trained_models(folder.parent), folder.name)
    if not folder.is_dir() and trained:
        known = "; ".join(model.flags for model in trained[:SHOWN_MODELS])
        raise FileNotFoundError(
            f"-tr, -p and -c must name a trained model of {folder.parent.name}; there is no {folder.name}. Use one "
            f"of these, the most similar first: {known}."
        )
    return [folder]
