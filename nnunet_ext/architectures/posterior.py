"""Several networks as one: its output is the log of the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

SMALLEST_PROBABILITY = 1e-7  # its log, -16.1, stays small enough for nnU-Net's half-precision sums


class PosteriorNetwork(nn.Module):
    """The Bayesian model average over members (arXiv 2212.06278, Eq. 2) in the form that nnU-Net expects.

    nnU-Net applies softmax (or, to regions, sigmoid) to what a network returns. The log of the mean probability
    (its log-odds) comes out of that as the mean probability again.

    Args:
        members: networks of the same outputs.

    The flag `regions` is part of the weights, because nnU-Net builds a network without saying whether its outputs
    are classes or regions.
    """

    regions: torch.Tensor

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("regions", torch.zeros((), dtype=torch.bool))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, channels, *spatial) to (B, C, *spatial), fp32: log of the mean probability or its log-odds."""
        nonlinearity = torch.sigmoid if self.regions else _softmax
        mean = nonlinearity(self.members[0](image).float())
        for member in self.members[1:]:
            mean += nonlinearity(member(image).float())
        mean /= len(self.members)
        return to_logits(mean, regions=bool(self.regions))


def to_logits(probabilities: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """The inverse of nnU-Net's non-linearity: log p for classes, log-odds for regions; fp32, never infinite."""
    if regions:
        return torch.logit(probabilities, eps=SMALLEST_PROBABILITY)
    return probabilities.clamp_min(SMALLEST_PROBABILITY).log()


def posterior_weights(members: Sequence[dict[str, torch.Tensor]], *, regions: bool) -> dict[str, torch.Tensor]:
    """The state dict of the `PosteriorNetwork` whose members have these weights.

    Raises:
        ValueError: if there are no members.
    """
    if not members:
        raise ValueError("A posterior needs at least one member; found none.")
    weights = {
        f"members.{index}.{name}": tensor for index, member in enumerate(members) for name, tensor in member.items()
    }
    return {**weights, "regions": torch.tensor(regions)}


def _softmax(logits: torch.Tensor) -> torch.Tensor:
    return torch.softmax(logits, dim=1)
