"""Writes a trained model for a machine without nnU-Net: networks, what they need to know, and a program."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from nnunet_ext.deployment.checks import NetworkCheck, check_network, image_patches, noise_patches, patches_of
from nnunet_ext.deployment.facts import example_file, model_facts
from nnunet_ext.deployment.formats import FORMATS, require_packages, write_network
from nnunet_ext.deployment.int8 import Int8Cases, Int8Loss, int8_loss, nncf_package, write_int8
from nnunet_ext.deployment.refusal import DeploymentError
from nnunet_ext.deployment.stand_alone import open_network
from nnunet_ext.files.atomic import PARTIAL_PREFIX, write_json
from nnunet_ext.models.members import Member, MemberRule
from nnunet_ext.models.model import Model, build_network, load_model
from nnunet_ext.options import DeployOptions
from nnunet_ext.prediction_folder.cases import Case

CPU = torch.device("cpu")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeployedModel:
    """An exported model.

    Attributes:
        folder: holds `model.json`, `predict.py` and the networks.
        checks: how far each network is from torch, before it is quantised.
        losses: what int8 costs each network; empty without int8.
    """

    folder: Path
    checks: list[NetworkCheck]
    losses: list[Int8Loss]


def deploy_model(
    model_folder: Path, options: DeployOptions, cases_of: Callable[[str], Int8Cases] | None = None
) -> DeployedModel:
    """Exports every member of a model as a network of its own.

    Nothing is left in the results folder if a network is refused.

    Args:
        model_folder: a `TRAINER__PLANS__CONFIGURATION` folder.
        options: what is written, and where to.
        cases_of: the cases of a fold, by its folder's name; needed for int8.

    Raises:
        DeploymentError: if a network cannot be written in the format or predicts something else than torch, the model
            has steps that the stand-alone program does not have, or the target folder exists.
        ExtraMissingError: if the format needs a package that is not installed.
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
    if cases_of is not None:
        require_int8(model, cases_of)
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
        losses = []
        if cases_of is not None:
            losses = [quantise(model, number, facts, partial, cases_of) for number in range(len(model.members))]
        write_record(model, facts, options, partial, checks, losses)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return DeployedModel(target, checks, losses)


def require_int8(model: Model, cases_of: Callable[[str], Int8Cases]) -> None:
    """Refuses, before the first network is written, what `quantise` would refuse after the last.

    Raises:
        ExtraMissingError: if NNCF is not installed.
        TrainedOnError, FileNotFoundError, ValueError: see `int8_cases`.
    """
    nncf_package()
    for fold in {member.fold for member in model.members}:
        cases_of(fold)


def write_all(
    model: Model, patches: torch.Tensor, facts: dict[str, Any], folder: Path, options: DeployOptions
) -> list[NetworkCheck]:
    """Writes and checks the network of every member."""
    checks = []
    for file, member in zip(files_of(model, folder, options), model.members, strict=True):
        write_network(options.format, network_of(model, member), patches[:1], file, options.precision)
        check = check_network(
            network_of(model, member),
            open_network(file),
            patches,
            regions=model.labels.has_regions,
            precision=options.precision,
        )
        checks.append(check)
    return checks


def quantise(
    model: Model, number: int, facts: dict[str, Any], folder: Path, cases_of: Callable[[str], Int8Cases]
) -> Int8Loss:
    """Replaces the OpenVINO network of a member by one in int8, and compares both on held-out cases."""
    member, file = model.members[number], folder / f"network_{number}.xml"
    cases = cases_of(member.fold)
    calibration = [patches_of(model, model.preprocess(Case(case.name, case.images))[0]) for case in cases.calibration]
    with TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        quantised = Path(temporary) / file.name
        write_int8(network_of(model, member), torch.cat(calibration), quantised)
        loss = int8_loss(open_network(file), open_network(quantised), cases.held_out, facts, Path(temporary))
        for ending in (".xml", ".bin"):
            shutil.copyfile(quantised.with_suffix(ending), file.with_suffix(ending))
    return loss


def write_record(
    model: Model,
    facts: dict[str, Any],
    options: DeployOptions,
    folder: Path,
    checks: Sequence[NetworkCheck],
    losses: Sequence[Int8Loss],
) -> None:
    """Writes `model.json` and `predict.py`."""
    files = files_of(model, folder, options)
    networks = [
        {"file": file.name, "member": member.name, "sha256": member.sha256, "check": check.record()}
        for file, member, check in zip(files, model.members, checks, strict=True)
    ]
    for network, loss in zip(networks, losses, strict=False):  # there are none without int8
        network["int8"] = asdict(loss)
    precision = "int8" if options.int8 else options.precision
    write_json(
        facts | {"format": options.format, "precision": precision, "networks": networks}, folder / "model.json"
    )
    shutil.copyfile(example_file(), folder / "predict.py")


def files_of(model: Model, folder: Path, options: DeployOptions) -> list[Path]:
    """The file of every member's network."""
    return [folder / f"network_{number}{FORMATS[options.format].ending}" for number in range(len(model.members))]


def network_of(model: Model, member: Member) -> nn.Module:
    """A new network with the weights of a member, in fp32 and evaluation mode, as its trainer builds it."""
    network = build_network(
        member.trainer_name, model.plans, model.configuration, model.dataset_json, model.labels
    ).eval()
    network.load_state_dict({name: tensor.clone() for name, tensor in member.weights().items()})
    return network
