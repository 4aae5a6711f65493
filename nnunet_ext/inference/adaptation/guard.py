"""The guard: an adaptation after which the prediction looks very different is not used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from nnunet_ext.inference.adaptation.foreground import confidence_of, foreground_of
from nnunet_ext.options import AdaptOptions


@dataclass(frozen=True)
class Look:
    """What the guard knows of a prediction.

    Attributes:
        foreground: number of predicted foreground voxels.
        near: number of voxels near the foreground of the unadapted prediction.
        confidence: sum of the confidence over these voxels.
    """

    foreground: int
    near: int
    confidence: float

    @property
    def mean_confidence(self) -> float:
        """Mean confidence near the foreground."""
        return self.confidence / self.near


def look_at(logits: torch.Tensor, near: torch.Tensor, *, regions: bool) -> Look:
    """What the guard knows of logits (C, *spatial), with `near`, bool (*spatial), from the unadapted prediction."""
    confidence = confidence_of(logits[:, near], regions=regions)
    return Look(
        foreground=int(foreground_of(logits, regions=regions).sum()),
        near=int(near.sum()),
        confidence=float(confidence.cpu().double().sum()),
    )


def together(looks: Iterable[Look]) -> Look:
    """Several tiles as one prediction; voxels in two of them count twice."""
    listed = list(looks)
    return Look(
        sum(look.foreground for look in listed),
        sum(look.near for look in listed),
        sum(look.confidence for look in listed),
    )


def jump(before: Look, after: Look, options: AdaptOptions) -> str | None:
    """What jumped between two predictions, in words; None if nothing did."""
    volume = after.foreground / before.foreground - 1 if before.foreground else float(after.foreground > 0)
    if not abs(volume) <= options.largest_volume_change:
        return f"the foreground's volume changed by {volume:+.0%}"
    confidence = after.mean_confidence - before.mean_confidence
    if not abs(confidence) <= options.largest_confidence_change:  # NaN is a jump as well
        return f"the confidence near the foreground changed by {confidence:+.3f}"
    return None
