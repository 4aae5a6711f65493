"""Writes a trained model for a machine without nnU-Net: networks, what they need to know, and a program."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnunet_ext.deployment.checks import NetworkCheck, check_network, image_patches, noise_patches
from nnunet_ext.deployment.facts import example_file, model_facts
from nnunet_ext.deployment.formats import FORMATS, require_packages, write_network
from nnunet_ext.deployment.refusal import DeploymentError
from nnunet_ext.deployment.stand_alone import open_network
from nnunet_ext.files.atomic import PARTIAL_PREFIX, write_json
from nnunet_ext.models.members import Member, MemberRule
from nnunet_ext.models.model import Model, build_network, load_model
from nnunet_ext.options import DeployOptions

CPU = torch.device("cpu")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeployedModel:
    """An exported model.

    Attributes:
        folder: holds `model.json`, `predict.py` and the networks.
        checks: how far each network is from torch.
    """

    folder: Path
    checks: list[NetworkCheck]


def deploy_model(model_folder: Path, options: DeployOptions) -> DeployedModel:
    """Exports every member of a model as a network of its own.

    Nothing is left in the results folder if a network is refused.

    Args:
        model_folder: a `TRAINER__PLANS__CONFIGURATION` folder.
        options: what is written, and where to.

    Raises:
        DeploymentError: if a network cannot be written in the format or predicts something else than torch, the model
            has steps that the stand-alone program does not have, or the target folder exists.
        PackageMissingError: if the format needs a package that is not installed.
        MemberError, CheckpointError, FileNotFoundError: see `load_model`.
    """
    require_packages(options.format)
    rule = MemberRule(options.checkpoint)
    model = load_model(model_folder, options.folds, rule, device=CPU, trust=options.trust_checkpoints)
    facts = model_facts(model)
    target = options.results / facts["dataset"] / model_folder.resolve().name
    if target.exists():
        raise DeploymentError(
            f"A model is exported to a new folder; {target} exists. Choose another -o, or delete it."
        )
    patches = noise_patches(model)
    if options.images is not None:
        patches = torch.cat([patches, image_patches(model, options.images)])
    else:
        logger.warning("The networks are checked on noise alone: there are no images. Name their folder with -i.")
    partial = target.with_name(PARTIAL_PREFIX + target.name)
    shutil.rmtree(partial, ignore_errors=True)  # of a killed run
    partial.mkdir(parents=True)
    try:
        checks = write_all(model, patches, facts, partial, options)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return DeployedModel(target, checks)


def write_all(
    model: Model, patches: torch.Tensor, facts: dict[str, Any], folder: Path, options: DeployOptions
) -> list[NetworkCheck]:
    """Writes and checks the network of every member, `model.json` and `predict.py`."""
    checks, networks = [], []
    for number, member in enumerate(model.members):
        file = folder / f"network_{number}{FORMATS[options.format].ending}"
        write_network(options.format, network_of(model, member), patches[:1], file, options.precision)
        check = check_network(
            network_of(model, member),
            open_network(file),
            patches,
            regions=model.labels.has_regions,
            precision=options.precision,
        )
        checks.append(check)
        networks.append({"file": file.name, "member": member.name, "sha256": member.sha256, "check": check.record()})
    written = {"format": options.format, "precision": options.precision, "networks": networks}
    write_json(facts | written, folder / "model.json")
    shutil.copyfile(example_file(), folder / "predict.py")
    return checks


def network_of(model: Model, member: Member) -> nn.Module:
    """A new network with the weights of a member, in fp32 and evaluation mode, as its trainer builds it."""
    network = build_network(
        member.trainer_name, model.plans, model.configuration, model.dataset_json, model.labels
    ).eval()
    network.load_state_dict({name: tensor.clone() for name, tensor in member.weights().items()})
    return network
