"""Several networks as one: its output is the log of the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nnunet_ext.architectures.mirroring import mean_over_flips, mirror_flips

SMALLEST_PROBABILITY = 1e-7  # its log, -16.1, stays small enough for nnU-Net's half-precision sums
SPATIAL_AXES = 3


class PosteriorNetwork(nn.Module):
    """The Bayesian model average over members (arXiv 2212.06278, Eq. 2) in the form that nnU-Net expects.

    nnU-Net applies softmax (or, to regions, sigmoid) to what a network returns. The log of the mean probability
    (its log-odds) comes out of that as the mean probability again.

    A member's logits are averaged over mirrored copies before its softmax, as our predictor does. Stock nnU-Net
    would mirror the whole ensemble and average the logs, which is another thing: so this network mirrors its input
    itself, and its checkpoint tells nnU-Net not to.

    Args:
        members: networks of the same outputs.

    The flags `regions` and `mirrored` (one a spatial axis) are part of the weights, because nnU-Net builds a network
    without saying whether its outputs are classes or regions, or what training mirrored.
    """

    regions: torch.Tensor
    mirrored: torch.Tensor

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("regions", torch.zeros((), dtype=torch.bool))
        self.register_buffer("mirrored", torch.zeros(SPATIAL_AXES, dtype=torch.bool))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, channels, *spatial) to (B, C, *spatial), fp32: log of the mean probability or its log-odds."""
        regions = bool(self.regions)
        flips = mirror_flips(self.mirrored.nonzero().flatten().tolist())
        mean = self.probabilities_of(self.members[0], image, flips, regions=regions)
        for member in self.members[1:]:
            mean += self.probabilities_of(member, image, flips, regions=regions)
        mean /= len(self.members)
        return to_logits(mean, regions=regions)

    @staticmethod
    def probabilities_of(
        member: nn.Module, image: torch.Tensor, flips: Sequence[tuple[int, ...]], *, regions: bool
    ) -> torch.Tensor:
        """One member's probabilities, (B, C, *spatial)."""
        logits = mean_over_flips(member, image, flips)
        return torch.sigmoid(logits) if regions else torch.softmax(logits, dim=1)


def to_logits(probabilities: torch.Tensor, *, regions: bool, smallest: float = SMALLEST_PROBABILITY) -> torch.Tensor:
    """The inverse of nnU-Net's non-linearity: log p for classes, log-odds for regions; fp32, never infinite.

    Args:
        probabilities: of any shape.
        regions: the outputs are regions.
        smallest: smaller probabilities count as this one.
    """
    if regions:
        return torch.logit(probabilities, eps=smallest)
    return probabilities.clamp_min(smallest).log()


def posterior_weights(
    members: Sequence[dict[str, torch.Tensor]], *, regions: bool, mirror_axes: Sequence[int] | None
) -> dict[str, torch.Tensor]:
    """The state dict of the `PosteriorNetwork` whose members have these weights.

    Args:
        members: state dicts of one network.
        regions: the outputs are regions.
        mirror_axes: spatial axes that training mirrored, as a checkpoint stores them.

    Raises:
        ValueError: if there are no members.
    """
    if not members:
        raise ValueError("A posterior needs at least one member; found none.")
    weights = {
        f"members.{index}.{name}": tensor for index, member in enumerate(members) for name, tensor in member.items()
    }
    mirrored = torch.tensor([axis in (mirror_axes or ()) for axis in range(SPATIAL_AXES)])
    return {**weights, "regions": torch.tensor(regions), "mirrored": mirrored}
