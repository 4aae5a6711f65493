"""`nnunet_ext trainers --cost`: parameters and operations of trainers' networks for the plans of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunet_ext.architectures.cost import NetworkCost, network_cost
from nnunet_ext.commands.planned_dataset import PlannedDataset
from nnunet_ext.models.model import build_network
from nnunet_ext.options import TrainerCostOptions
from nnunet_ext.trainers.part import PREFIX, Kind
from nnunet_ext.trainers.parts import PARTS

GIGA = 1e9


@dataclass(frozen=True)
class TrainerCost:
    """A trainer and what its network costs in prediction.

    Attributes:
        trainer: its name.
        cost: None if the plans or the name do not allow the network.
        reason: why not; "" if they do.
    """

    trainer: str
    cost: NetworkCost | None
    reason: str = ""


def trainer_costs(options: TrainerCostOptions) -> list[TrainerCost]:
    """The cost of each trainer's network, in the order of the names.

    Raises:
        FileNotFoundError: if the dataset has no such plans.
        ValueError: if the plans have no such configuration, or `nnUNet_preprocessed` is not set.
    """
    planned = PlannedDataset.open(options.dataset, options.plans, ["configurations"])
    plans = planned.manager
    if options.configuration not in plans.available_configurations:
        raise ValueError(
            f"-c must be a configuration of {planned.plans_file}: {', '.join(plans.available_configurations)}; found "
            f"{options.configuration!r}. Write one of them."
        )
    dataset_json = planned.description()
    return [cost_of(trainer, plans, options.configuration, dataset_json) for trainer in named_or_default(options)]


def named_or_default(options: TrainerCostOptions) -> Sequence[str]:
    """The trainers of the options; if there are none, nnU-Net's and one for each part that changes the network."""
    parts = [part.spelling for part in PARTS if part.kind is Kind.NETWORK and part.spelling.isalnum()]
    return options.trainers or [PREFIX, *(PREFIX + part for part in parts)]


def cost_of(trainer: str, plans: PlansManager, configuration: str, dataset_json: dict) -> TrainerCost:
    """The cost of one trainer's network; a trainer that is refused has the reason instead."""
    planned = plans.get_configuration(configuration)
    channels = determine_num_input_channels(plans, planned, dataset_json)
    build = partial(build_network, trainer, plans, planned, dataset_json, plans.get_label_manager(dataset_json))
    try:
        network = without_data(build)
    except (ValueError, RuntimeError) as error:  # the reasons of names and of parts
        return TrainerCost(trainer, None, str(error))
    return TrainerCost(trainer, network_cost(network, channels, planned.patch_size))


def without_data(build: Callable[[], nn.Module]) -> nn.Module:
    """A network whose weights take neither memory nor time, but for the few that read values while they are built."""
    try:
        with torch.device("meta"):
            return build()
    except RuntimeError:  # "cannot be called on meta tensors"
        return build()


def cost_lines(costs: Sequence[TrainerCost]) -> list[str]:
    """A table for the terminal: a row per trainer, the planned network's share, and the reasons below."""
    base = next((each.cost for each in costs if each.cost), None)
    rows = [("trainer", "parameters", "", "operations, 10^9", "")]
    for each in costs:
        if each.cost is None or base is None:
            rows.append((each.trainer, "-", "", "-", ""))
            continue
        rows.append(
            (
                each.trainer,
                f"{each.cost.parameters:,}",
                f"x {each.cost.parameters / base.parameters:.2f}",
                f"{each.cost.operations / GIGA:,.1f}",
                f"x {each.cost.operations / base.operations:.2f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    first, *others = widths
    lines = [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
        for row in rows
    ]
    return [line.rstrip() for line in lines] + [f"{each.trainer}: {each.reason}" for each in costs if each.reason]
