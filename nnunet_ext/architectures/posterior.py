"""Several networks in one, whose output is the log of their mean probability."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nnunet_ext.architectures.mirroring import mean_over_flips, mirror_flips

SMALLEST_PROBABILITY = 1e-7  # its log, -16.1, stays small enough for nnU-Net's half-precision sums
SPATIAL_AXES = 3


class PosteriorNetwork(nn.Module):
    """The Bayesian model average over members (arXiv 2212.06278, Eq. 2) in the form that nnU-Net expects.

    nnU-Net applies a softmax (for regions a sigmoid) to a network's output. Applied to the log of the mean
    probability (for regions its log-odds), it returns the mean probability.

    A member's logits are averaged over mirrored copies before its softmax, as in `EnsemblePredictor`. Stock nnU-Net
    would mirror the whole ensemble and average its output, which gives another result; therefore this network mirrors
    its input itself, and its checkpoint disables mirroring in nnU-Net.

    The flags `regions` and `mirrored` (one per spatial axis) are stored with the weights, because nnU-Net builds a
    network without saying whether its outputs are classes or regions, or which axes were mirrored in training.

    Args:
        members: networks with the same outputs.
    """

    regions: torch.Tensor
    mirrored: torch.Tensor

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("regions", torch.zeros((), dtype=torch.bool))
        self.register_buffer("mirrored", torch.zeros(SPATIAL_AXES, dtype=torch.bool))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, channels, *spatial) to fp32 (B, C, *spatial): the log, for regions the log-odds, of the mean."""
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
    """The inverse of nnU-Net's non-linearity: log p for classes, log-odds for regions.

    Args:
        probabilities: fp32, of any shape.
        regions: whether the outputs are overlapping regions.
        smallest: probabilities are clamped to at least this value; for regions also to at most 1 - `smallest`.

    Returns:
        Finite logits of the same shape and type.
    """
    if regions:
        return torch.logit(probabilities, eps=smallest)
    return probabilities.clamp_min(smallest).log()


def posterior_weights(
    members: Sequence[dict[str, torch.Tensor]], *, regions: bool, mirror_axes: Sequence[int] | None
) -> dict[str, torch.Tensor]:
    """The state dict of the `PosteriorNetwork` whose members have these weights.

    Args:
        members: state dicts of the same architecture.
        regions: whether the outputs are overlapping regions.
        mirror_axes: spatial axes that were mirrored in training, as a checkpoint stores them.

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
