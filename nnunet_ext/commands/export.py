"""`nnunet_ext export`: copies of models that stock nnU-Net can predict with."""

from __future__ import annotations

from pathlib import Path

from nnunet_ext.models.named_folders import chosen_model_folders
from nnunet_ext.models.plain_copy import copy_plain_model
from nnunet_ext.options import ModelChoice, PlainCopyOptions


def export_models(model: ModelChoice, options: PlainCopyOptions) -> list[Path]:
    """Copies models under the names of stock trainers.

    Returns:
        The folders of the copies.

    Raises:
        PlainCopyError: if stock nnU-Net has no network that takes the weights, or a copy's folder exists.
    """
    return [copy_plain_model(folder, options) for folder in chosen_model_folders(model)]
