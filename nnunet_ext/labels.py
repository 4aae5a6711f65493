"""What the outputs of a network stand for: classes, or regions that are made of several labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Region = tuple[int, ...]  # the labels that make up a structure


@dataclass(frozen=True)
class LabelScheme:
    """How label maps and a network's outputs are interpreted.

    Attributes:
        structures: name of every foreground class or region to its labels, in the order of the outputs.
        regions: whether the outputs are regions, which may overlap, rather than classes.
        ignore_label: ignore label of label maps; None if there is none.
    """

    structures: Mapping[str, Region]
    regions: bool = False
    ignore_label: int | None = None

    def outputs(self) -> dict[str, Region]:
        """Name to labels of every output: the classes by label, background first, or the regions."""
        if self.regions:
            return dict(self.structures)
        return {"background": (0,)} | dict(sorted(self.structures.items(), key=lambda entry: entry[1]))


def regions_of(dataset_json: Mapping[str, Any]) -> dict[str, Region]:
    """Name to labels of every foreground class or region, in the order of the network's outputs.

    Background and the ignore label are left out.

    Args:
        dataset_json: nnU-Net's description of the dataset.
    """
    regions = {}
    for name, value in dataset_json["labels"].items():
        members = tuple(int(label) for label in value) if isinstance(value, (list, tuple)) else (int(value),)
        if name != "ignore" and set(members) != {0}:
            regions[name] = members
    return regions
