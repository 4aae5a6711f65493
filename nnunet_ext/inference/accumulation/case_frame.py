"""The part of the image that an ensemble predicts, and how each model's volumes are placed in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from nnunet_ext.inference.accumulation.resampling import (
    Box,
    box_shape,
    common_box,
    crop_box,
    image_shape,
    in_image,
    in_whole_image,
    outside_probabilities,
    place,
)
from nnunet_ext.inference.accumulation.slabs import SlicedVolume, WholeVolume, assembled
from nnunet_ext.inference.sliding_window import TiledImage
from nnunet_ext.machine.tensor_room import IN_MEMORY, TensorRoom
from nnunet_ext.models.model import Model


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case after one model's preprocessing: the tiled image and nnU-Net's properties.

    Models that preprocess alike share it, so nothing of it is changed in place. Only itself is equal to it.
    """

    tiled: TiledImage
    properties: dict

    def to(self, device: torch.device, room: TensorRoom = IN_MEMORY) -> PreparedCase:
        """The same case with its image on the device where the members' results are accumulated.

        Args:
            device: the device.
            room: where the members' logits are kept.
        """
        return PreparedCase(replace(self.tiled.to(device), room=room), self.properties)


def all_to(
    prepared: Sequence[PreparedCase], device: torch.device, room: TensorRoom = IN_MEMORY
) -> list[PreparedCase]:
    """`PreparedCase.to` for the case of every model; what models share is moved once, and shared afterwards."""
    moved = {case: case.to(device, room) for case in dict.fromkeys(prepared)}
    return [moved[case] for case in prepared]


class CaseFrame:
    """The part of the image that remains after nnU-Net's crop, in the image's own axes and resolution.

    Models may crop differently, so the box encloses the boxes of all models. Every voxel outside it is background.

    Args:
        models: the models of the ensemble.
        prepared: the case after each model's preprocessing, in the same order.

    Attributes:
        box: the part of the image that is predicted.
        box_shape: number of voxels of the box along each axis.
        shape: shape of the whole image.
        properties: what nnU-Net recorded about the image.
    """

    def __init__(self, models: Sequence[Model], prepared: Sequence[PreparedCase]) -> None:
        self.models = models
        self.prepared = prepared
        self.boxes = [crop_box(case.properties, model.plans) for model, case in zip(models, prepared, strict=True)]
        self.box: Box = common_box(self.boxes)
        self.box_shape = box_shape(self.box)
        self.shape = image_shape(prepared[0].properties, models[0].plans)
        self.properties = prepared[0].properties

    @property
    def device(self) -> torch.device:
        """Where the members' logits are."""
        return self.prepared[0].tiled.image.device

    def is_whole(self, position: int) -> bool:
        """Whether the model at this position predicts the whole box."""
        return self.boxes[position] == self.box

    def in_box(self, position: int, values: torch.Tensor, outside: torch.Tensor) -> SlicedVolume:
        """A network's output resampled to the box.

        Args:
            position: index of the network's model.
            values: (C, *spatial) on the network's axes, at its resolution.
            outside: (C), the values to use where this model cropped the image away.

        Returns:
            A volume (C, *box_shape).
        """
        model, box = self.models[position], self.boxes[position]
        volume = in_image(values, self.prepared[position].properties, model.plans, model.configuration)
        if box == self.box:
            return volume
        whole = assembled(volume, (len(values), *box_shape(box)))
        return WholeVolume(place(whole, box, self.box, outside.to(values.device)))

    def embedded(self, volume: np.ndarray, fill: float = 0) -> np.ndarray:
        """Puts a volume (*box_shape) into the whole image (*shape), with `fill` outside the box."""
        return in_whole_image(volume, self.box, self.shape, fill)

    def embedded_probabilities(self, probabilities: torch.Tensor, *, regions: bool) -> np.ndarray:
        """Puts probabilities (C, *box_shape) into the whole image (C, *shape), with background outside the box."""
        whole = tuple(slice(0, size) for size in self.shape)
        outside = outside_probabilities(len(probabilities), regions=regions)
        return place(probabilities.cpu(), self.box, whole, outside).numpy()
