"""The folders of the models that a command works on. Torch is not imported."""

from __future__ import annotations

from pathlib import Path

from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunet_ext.models.trained import closest_first, trained_models
from nnunet_ext.options import ModelChoice

SHOWN_MODELS = 5


def chosen_model_folders(choice: ModelChoice) -> list[Path]:
    """`TRAINER__PLANS__CONFIGURATION` folders: those that were named, or the one in `nnUNet_results`.

    Raises:
        FileNotFoundError: if the dataset has trained models, but not this one; names the closest.
    """
    if choice.folders:
        return list(choice.folders)
    folder = Path(get_output_folder(choice.dataset, choice.trainer, choice.plans, choice.configuration))
    trained = closest_first(trained_models(folder.parent), folder.name)
    if not folder.is_dir() and trained:
        known = "; ".join(model.flags for model in trained[:SHOWN_MODELS])
        raise FileNotFoundError(
            f"-tr, -p and -c must name a trained model of {folder.parent.name}; there is no {folder.name}. Write "
            f"one of these, the closest first: {known}."
        )
    return [folder]
