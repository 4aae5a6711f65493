"""Options of test-time adaptation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdaptOptions:
    """How a member is adapted to a case, and when it is not.

    Attributes:
        steps: number of steps of Adam; 0 changes nothing.
        learning_rate: learning rate of Adam.
        margin: a voxel is near the foreground if it is at most this many voxels away along each axis of the patch, on
            the network's grid.
        tiles: the largest number of tiles that the steps run on.
        largest_volume_change: a member falls back if the volume of the foreground changes by a larger share.
        largest_confidence_change: a member falls back if the mean confidence near the foreground changes by more.

    Raises:
        ValueError: if a number is out of range.
    """

    steps: int = 10
    learning_rate: float = 1e-4
    margin: int = 5
    tiles: int = 8
    largest_volume_change: float = 0.2
    largest_confidence_change: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("margin", 0), ("tiles", 1)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"The {name} of an adaptation must be at least {least}; found {value}.")
        for name in ("learning_rate", "largest_volume_change", "largest_confidence_change"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"The {name} of an adaptation must be above 0; found {value}.")
