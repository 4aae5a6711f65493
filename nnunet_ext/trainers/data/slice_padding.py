"""Slices that nnU-Net's loader adds to an image, told apart from blank slices of the image itself.

nnU-Net's loader fills what lies outside of an image with the label -1. Its preprocessing has written the same label
into the image wherever all channels are 0 outside of any object: a real slice that is blank looks like padding.
So the voxels of the image get another label while the loader cuts and augments, and the slices that bear -1 after the
last transform of the image are padding. They are marked with NaN, which `StreamingNetwork` looks for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

PADDING_LABEL = -1  # of the loader and of nnU-Net's spatial transforms, and of blank voxels in preprocessed images
BLANK_LABEL = -2  # of blank voxels of the image while it is loaded; negative, as nnU-Net's masking asks for


class SegmentationOfImage:
    """A preprocessed segmentation, read only where it is cut, with `BLANK_LABEL` where nnU-Net wrote -1.

    Args:
        segmentation: (channels, *spatial), an array or one of blosc2's, which reads from the disk when it is indexed.
    """

    def __init__(self, segmentation: Any) -> None:
        self.segmentation = segmentation
        self.shape = segmentation.shape
        self.dtype = segmentation.dtype

    def __getitem__(self, where: Any) -> np.ndarray:
        part = np.asarray(self.segmentation[where])
        return np.where(part == PADDING_LABEL, part.dtype.type(BLANK_LABEL), part)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[...].astype(dtype or self.dtype)


class ImagesOfDataset:
    """One of nnU-Net's datasets whose segmentations are `SegmentationOfImage`s; otherwise the same."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.identifiers = dataset.identifiers

    def load_case(self, identifier: str) -> tuple[Any, SegmentationOfImage, Any, dict[str, Any]]:
        """Image, segmentation, that of the previous stage or None, and properties."""
        image, segmentation, previous, properties = self.dataset.load_case(identifier)
        return image, SegmentationOfImage(segmentation), previous, properties


class MarkPadding(BasicTransform):
    """Fills slices that lie wholly outside of the image with NaN, and gives blank voxels nnU-Net's label again."""

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        """Which slices of (channels, D, *in_plane) are padding, (D,)."""
        return {"is_padding": (data_dict["segmentation"][0] == PADDING_LABEL).flatten(start_dim=1).all(dim=1)}

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        img[:, params["is_padding"]] = torch.nan
        return img

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        segmentation[segmentation == BLANK_LABEL] = PADDING_LABEL
        return segmentation


def with_marked_padding(transforms: ComposeTransforms) -> ComposeTransforms:
    """The same transforms with `MarkPadding` before the one that removes the label of padding.

    In all of nnU-Net's pipelines that comes after the last transform of the image's own channels.
    """
    steps = list(transforms.transforms)
    position = next(
        index
        for index, step in enumerate(steps)
        if isinstance(step, RemoveLabelTansform) and step.label_value == PADDING_LABEL
    )
    return ComposeTransforms([*steps[:position], MarkPadding(), *steps[position:]])
