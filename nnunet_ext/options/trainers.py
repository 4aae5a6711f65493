"""The options of `trainers --cost`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainerCostOptions:
    """Whose cost `nnunet_ext trainers --cost` counts, and for which plans.

    Attributes:
        dataset: name or id of a planned dataset, in `nnUNet_preprocessed`.
        configuration: "2d", "3d_fullres", ...
        plans: name of the plans.
        trainers: names of trainers; empty takes nnU-Net's and one for each part that changes the network.
    """

    dataset: str
    configuration: str
    plans: str = "nnUNetPlans"
    trainers: Sequence[str] = ()
