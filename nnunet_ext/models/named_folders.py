"""The folders of the models that a command works on. Torch is not imported."""

from __future__ import annotations

from pathlib import Path

from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunet_ext.options import ModelChoice


def chosen_model_folders(choice: ModelChoice) -> list[Path]:
    """`TRAINER__PLANS__CONFIGURATION` folders: those that were named, or the one in `nnUNet_results`."""
    if choice.folders:
        return list(choice.folders)
    return [Path(get_output_folder(choice.dataset, choice.trainer, choice.plans, choice.configuration))]
