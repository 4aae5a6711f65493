"""What the outputs of a network stand for: classes, or regions that are made of several labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Region = tuple[int, ...]  # the labels that make up a structure


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
