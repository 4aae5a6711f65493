"""What dataset.json calls the labels of a segmentation and the channels of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_ext.descriptions import channels_of


def label_names(dataset_json: Mapping[str, Any]) -> dict[int, str]:
    """Label of a segmentation to its name, without background and ignore label.

    Of regions, nnU-Net writes the label that `regions_class_order` gives to the last region that holds a voxel; it
    has that region's name here.
    """
    named = {
        name: value
        for name, value in dataset_json["labels"].items()
        if name not in ("background", "ignore") and value != 0
    }
    order = dataset_json.get("regions_class_order")
    if order and any(isinstance(value, (list, tuple)) for value in named.values()):
        return {int(label): name for label, name in zip(order, named, strict=False)}
    return {int(value): name for name, value in named.items() if not isinstance(value, (list, tuple))}


def channel_names(dataset_json: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the channels, in their order; empty if they have none."""
    names = channels_of(dataset_json)
    return tuple(str(names[number]) for number in sorted(names, key=int))
