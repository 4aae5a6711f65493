"""`nnunet_ext export`: copies of models for stock nnU-Net, or for machines without it."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from nnunet_ext.commands.int8_cases import int8_cases
from nnunet_ext.deployment.deploy import DeployedModel, deploy_model
from nnunet_ext.models.named_folders import chosen_model_folders
from nnunet_ext.models.plain_copy import copy_plain_model
from nnunet_ext.options import DeployOptions, ModelChoice, PlainCopyOptions

RAW_VARIABLE = "nnUNet_raw"


def export_models(model: ModelChoice, options: PlainCopyOptions) -> list[Path]:
    """Copies models under the names of stock trainers.

    Returns:
        The folders of the copies.

    Raises:
        PlainCopyError: if stock nnU-Net has no network that takes the weights, or a copy's folder exists.
    """
    return [copy_plain_model(folder, options) for folder in chosen_model_folders(model)]


def deploy_models(model: ModelChoice, options: DeployOptions) -> list[DeployedModel]:
    """Exports models for machines without nnU-Net.

    Raises:
        DeploymentError: see `deploy_model`.
        TrainedOnError, FileNotFoundError, ValueError: see `int8_cases`.
    """
    deployed = []
    for folder in chosen_model_folders(model):
        chosen = replace(options, images=options.images or training_images(folder))
        deployed.append(deploy_model(folder, chosen, partial(int8_cases, folder) if options.int8 else None))
    return deployed


def training_images(model_folder: Path) -> Path | None:
    """`imagesTr` of the dataset that a model folder lies under, in `nnUNet_raw`; None if it is not there."""
    raw = os.environ.get(RAW_VARIABLE)
    folder = Path(raw or "") / model_folder.resolve().parent.name / "imagesTr"
    return folder if raw and folder.is_dir() else None
