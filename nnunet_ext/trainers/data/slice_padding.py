"""Distinguishes slices that nnU-Net's loader pads an image with from blank slices of the image itself.

nnU-Net's loader labels everything outside the image with -1. Its preprocessing has written the same label into the
image wherever all channels are 0 outside any object, so that a blank slice of the image looks like padding.
Therefore these voxels get another label while the loader crops and augments; slices that carry -1 after the last
transform of the image are padding. They are marked with NaN, which `StreamingNetwork` looks for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

PADDING_LABEL = -1  # written by the loader and nnU-Net's spatial transforms, and for blank voxels by preprocessing
BLANK_LABEL = -2  # blank voxels of the image while it is loaded; negative, as nnU-Net's masking requires


class SegmentationOfImage:
    """A preprocessed segmentation, read lazily where it is indexed, with `BLANK_LABEL` in place of nnU-Net's -1.

    Args:
        segmentation: (channels, *spatial), a NumPy array or a blosc2 array, which reads from disk when indexed.
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
    """Wraps one of nnU-Net's datasets so that its segmentations are `SegmentationOfImage`s."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.identifiers = dataset.identifiers

    def load_case(self, identifier: str) -> tuple[Any, SegmentationOfImage, Any, dict[str, Any]]:
        """The image, its segmentation, the segmentation of the previous stage or None, and the properties."""
        image, segmentation, previous, properties = self.dataset.load_case(identifier)
        return image, SegmentationOfImage(segmentation), previous, properties


class MarkPadding(BasicTransform):
    """Fills slices that lie entirely outside the image with NaN, and restores nnU-Net's label of blank voxels."""

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        """(D,) bool: which slices of (channels, D, *in_plane) are padding."""
        return {"is_padding": (data_dict["segmentation"][0] == PADDING_LABEL).flatten(start_dim=1).all(dim=1)}

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        img[:, params["is_padding"]] = torch.nan
        return img

    def _apply_to_regr_target(self, regression_target: torch.Tensor, **params: Any) -> torch.Tensor:
        return regression_target  # what was loaded with the case is 0 there

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        segmentation[segmentation == BLANK_LABEL] = PADDING_LABEL
        return segmentation


def with_marked_padding(transforms: ComposeTransforms) -> ComposeTransforms:
    """Inserts `MarkPadding` before the transform that removes the padding label.

    In all of nnU-Net's pipelines that transform comes after the last one that changes the image's own channels.
    """
    steps = list(transforms.transforms)
    position = next(
        index
        for index, step in enumerate(steps)
        if isinstance(step, RemoveLabelTansform) and step.label_value == PADDING_LABEL
    )
    return ComposeTransforms([*steps[:position], MarkPadding(), *steps[position:]])
