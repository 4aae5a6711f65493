"""Copies a trained model so that stock nnU-Net can predict with it, on machines without this package."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.files.checkpoints import load_checkpoint, save_checkpoint
from nnunet_ext.models.members import MemberRule
from nnunet_ext.models.model import Model, build_network, find_trainer, load_model
from nnunet_ext.options import PlainCopyOptions
from nnunet_ext.trainers.stock_variants import stock_class, stock_variant

PREDICTION_KEYS = ("network_weights", "init_args", "inference_allowed_mirroring_axes")
DESCRIPTIONS = ("dataset.json", "plans.json", "dataset_fingerprint.json")
CPU = torch.device("cpu")


class PlainCopyError(ValueError):
    """A model has no plain form, or the target folder exists; the message says which."""


def copy_plain_model(model_folder: Path, options: PlainCopyOptions) -> Path:
    """Copies checkpoints under the name of the stock trainer that builds the same network.

    The copies hold what prediction needs: weights, plans and mirror axes; training cannot continue from them. All
    weights are loaded strictly into the stock trainer's network before anything is written.

    Args:
        model_folder: a `TRAINER__PLANS__CONFIGURATION` folder.
        options: which checkpoints to copy, and where to.

    Returns:
        The folder of the copy, `results/DATASET/STOCK_TRAINER__PLANS__CONFIGURATION`.

    Raises:
        PlainCopyError: if the network of the stock trainer does not take the weights, or the target folder exists.
        MemberError, CheckpointError, FileNotFoundError: see `load_model`.
    """
    model = load_model(
        model_folder, options.folds, MemberRule(options.checkpoint), device=CPU, trust=options.trust_checkpoints
    )
    trainer = plain_trainer_name(model.members[0].trainer_name)
    require_plain(model, trainer, options.classifier)
    plans, configuration = model.plans.plans, model.members[0].configuration
    target = options.results / plans["dataset_name"] / f"{trainer}__{plans['plans_name']}__{configuration}"
    if target.exists():
        raise PlainCopyError(f"A copy is written to a new folder; {target} exists. Choose another -o, or delete it.")
    for member in model.members:
        content = load_checkpoint(member.path, trust=options.trust_checkpoints)
        weights = plain_weights(content["network_weights"], options.classifier)
        copy = {key: content.get(key) for key in PREDICTION_KEYS}
        copy |= {"trainer_name": trainer, "network_weights": weights}
        fold_folder = target / member.path.parent.name
        fold_folder.mkdir(parents=True, exist_ok=True)  # a pattern can name several checkpoints of a fold
        save_checkpoint(copy, fold_folder / member.path.name)
    for name in DESCRIPTIONS:
        if (model_folder / name).is_file():
            shutil.copyfile(model_folder / name, target / name)
    return target


def plain_trainer_name(trainer_name: str) -> str:
    """The stock trainer that builds the same network: `nnUNetTrainerBN` for `nnUNetTrainerDSD_BN_Cyclical`.

    For `nnUNetTrainerCyclical_PrimusM` it is `nnUNet_Primus_M_Trainer`.

    A stock trainer, whatever its name (`nnUNet_Primus_M_Trainer`), is returned as it is.
    """
    trainer = find_trainer(trainer_name)
    if trainer.__module__.startswith("nnunetv2."):
        return trainer_name
    words = getattr(trainer, "network_parts", ())
    stock = [stock_variant(word) or stock_primus(word) for word in words]
    return next((variant.__name__ for variant in stock if variant is not None), nnUNetTrainer.__name__)


def stock_primus(word: str) -> type[nnUNetTrainer] | None:
    """nnU-Net's trainer of a Primus, which has a name of another form; None for any other word."""
    return stock_class(f"nnUNet_Primus_{word.removeprefix('Primus')}_Trainer")


def plain_weights(weights: dict[str, torch.Tensor], classifier: int | None) -> dict[str, torch.Tensor]:
    """The weights of one classifier of a mixture, named as in a plain network; all weights if it is None."""
    if classifier is None:
        return weights
    prefix = f"classifiers.{classifier}."
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def require_plain(model: Model, trainer: str, classifier: int | None) -> None:
    """Refuses a model whose weights do not fit the network that the stock trainer builds."""
    network = build_network(trainer, model.plans, model.configuration, model.dataset_json, model.labels)
    for member in model.members:
        try:
            network.load_state_dict(plain_weights(member.weights(), classifier), assign=True)
        except RuntimeError as error:
            raise PlainCopyError(
                f"A plain copy needs weights that fit the network of {trainer}; those of {member.path} "
                f"({member.trainer_name}) belong to another network. Predict with nnunet_ext instead, or, for a "
                f"Streaming model, copy one of its U-Nets with --classifier."
            ) from error
