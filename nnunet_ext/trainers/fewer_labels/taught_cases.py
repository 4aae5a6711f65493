"""A teacher's probabilities in nnU-Net's loader: cropped and augmented like the image that they belong to.

They travel as channels behind those of the image. The first transform moves them to batchgenerators' regression
target, which spatial transforms change as they change the image (linear interpolation, 0 outside), and all others
leave alone. So image and target are those of a training without a teacher, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

from nnunet_ext.losses.added_terms import ExtraOfCase
from nnunet_ext.teaching.case_file import CaseProbabilities, case_file

AUGMENTED = ExtraOfCase("regression_target")


class ImageAndTeacher:
    """The channels of an image and, behind them, a teacher's probabilities; read only where it is indexed.

    Args:
        image: (channels, z, y, x), an array or one of blosc2's.
        teacher: (F, z, y, x).
    """

    def __init__(self, image: Any, teacher: CaseProbabilities) -> None:
        self.image = image
        self.teacher = teacher
        self.shape = (image.shape[0] + teacher.shape[0], *image.shape[1:])
        self.dtype = image.dtype

    def __getitem__(self, where: tuple[slice, ...]) -> np.ndarray:
        """A part, given by slices of all four axes; always with all channels."""
        part = (slice(None), *where[1:])
        return np.concatenate([np.asarray(self.image[part]), self.teacher[part].astype(self.dtype, copy=False)])


class TaughtCases:
    """One of nnU-Net's datasets whose images have a teacher's probabilities as further channels.

    Args:
        dataset: nnU-Net's, or one that wraps it.
        folder: of the probabilities.
        outputs: of the network, with the background.
        regions: whether the outputs are regions.
    """

    def __init__(self, dataset: Any, folder: Path, outputs: int, *, regions: bool) -> None:
        self.dataset = dataset
        self.folder = folder
        self.outputs = outputs
        self.regions = regions
        self.identifiers = dataset.identifiers

    def load_case(self, identifier: str) -> tuple[ImageAndTeacher, Any, Any, dict[str, Any]]:
        """Image and teacher, segmentation, that of the previous stage or None, and properties."""
        image, segmentation, previous, properties = self.dataset.load_case(identifier)
        return ImageAndTeacher(image, self.teacher_of(identifier)), segmentation, previous, properties

    def teacher_of(self, identifier: str) -> CaseProbabilities:
        """The teacher's probabilities of a case."""
        return CaseProbabilities(case_file(self.folder, identifier), self.outputs, regions=self.regions)

    def of_other_shape(self) -> list[str]:
        """The cases whose images have another shape than the probabilities: preprocessed again since."""
        return [
            case
            for case in sorted(set(self.identifiers))
            if self.dataset.load_case(case)[0].shape[1:] != self.teacher_of(case).shape[1:]
        ]


class MoveTeacher(BasicTransform):
    """Moves the last channels of the image to the regression target.

    Args:
        channels: how many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """See `BasicTransform`."""
        image = data_dict["image"]
        return {**data_dict, "image": image[: -self.channels], AUGMENTED.key: image[-self.channels :]}


def with_teacher_moved(transforms: ComposeTransforms, channels: int) -> ComposeTransforms:
    """Transforms that begin with `MoveTeacher`."""
    steps: Sequence[BasicTransform] = transforms.transforms
    return ComposeTransforms([MoveTeacher(channels), *steps])
