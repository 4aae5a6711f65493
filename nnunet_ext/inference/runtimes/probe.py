"""What a runtime looks at before it takes a model: the kind of its network, and patches of noise to compare."""

from __future__ import annotations

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

from nnunet_ext.architectures.dropout_draws import drawn_layers
from nnunet_ext.losses.targets import probabilities_of
from nnunet_ext.models.model import Model


def not_one_network(model: Model) -> str | None:
    """Why a runtime that runs one network with other weights cannot run a model; None if it can."""
    if len(model.volumes.classifiers) > 1 or not model.volumes.may_be_compiled:
        return "the network is a mixture of classifiers"
    if drawn_layers(model.network):
        return "the members are dropout draws"
    return None


def noise(model: Model, patches: int) -> torch.Tensor:
    """Patches (B, channels, *patch) of noise, the same in every call."""
    channels = determine_num_input_channels(model.plans, model.configuration, model.dataset_json)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(patches, channels, *model.configuration.patch_size, generator=generator)


def largest_difference(logits: torch.Tensor, others: torch.Tensor, *, regions: bool) -> float:
    """The largest difference of the probabilities of logits (B, C, *patch); NaN if one is NaN.

    Args:
        logits, others: of the same patches.
        regions: whether the outputs are overlapping regions with one sigmoid each.
    """
    ours, theirs = (probabilities_of(each, regions=regions) for each in (logits, others))
    return (ours - theirs).abs().max().item()
