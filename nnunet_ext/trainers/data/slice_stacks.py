"""Slabs for 2D configurations: consecutive slices of one case, augmented as one, instead of single slices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_ext.trainers.base import ExtTrainer

MOST_SLICES = 12
FEWEST_SLICES_FOR_DA5 = 6
PADDING_LABEL = -1  # nnU-Net's loader fills what lies outside of an image with it


class SlabLoading(ExtTrainer):
    """Trains 2D configurations on slabs (B, channels, S, *in_plane); leaves 3D ones as they are.

    A slab has the median number of slices of a case, but no more than 12 or than the planned batch holds.
    nnU-Net's own loader does it once it is told a patch of three axes, and its transforms for anisotropic 3D data
    ("dummy 2D") turn and scale all slices of a slab alike. The augmentation's parameters are those that nnU-Net has
    for the 2D patch. A batch holds as many slices as the plans say, or fewer by a remainder.
    """

    batch_size: int
    slices_in_slab: int
    probabilistic_oversampling: bool

    @property
    def planned_configuration(self) -> ConfigurationManager:
        """The configuration as the plans have it."""
        return self.plans_manager.get_configuration(self.configuration_name)

    @property
    def trains_on_slabs(self) -> bool:
        """Whether the configuration is 2D."""
        return len(self.planned_configuration.patch_size) == 2

    def _set_batch_size_and_oversample(self) -> None:
        super()._set_batch_size_and_oversample()  # with DDP the batch size is this process's share
        if self.trains_on_slabs:
            median = round(float(self.plans_manager.original_median_shape_after_transp[0]))
            self.slices_in_slab = max(1, min(median, MOST_SLICES, self.batch_size))
            self.batch_size //= self.slices_in_slab
            self.probabilistic_oversampling = True  # by place in the batch, a batch of one would never be chosen

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        scales = super()._get_deep_supervision_scales()
        if scales is None or not self.trains_on_slabs:
            return scales
        return [[1.0, *scale] for scale in scales]  # slices are not down-sampled

    def get_dataloaders(self) -> Any:
        if not self.trains_on_slabs:
            return super().get_dataloaders()
        self.require_slices_for_da5()
        self.print_to_log_file(f"Slabs of {self.slices_in_slab} slices, {self.batch_size} a batch.")
        with using_configuration(self, slab_configuration(self.planned_configuration, self.slices_in_slab)):
            return super().get_dataloaders()

    def require_slices_for_da5(self) -> None:
        """Refuses DA5 for thin slabs: it divides the number of slices by six and fails in single batches."""
        if isinstance(self, nnUNetTrainerDA5) and self.slices_in_slab < FEWEST_SLICES_FOR_DA5:
            raise ValueError(
                f"DA5 needs slabs of at least {FEWEST_SLICES_FOR_DA5} slices; this dataset and batch size give "
                f"{self.slices_in_slab}. Leave DA5 out, or raise the batch size in the plans."
            )

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:
        with using_configuration(self, self.planned_configuration):
            planned = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if not self.trains_on_slabs:
            return planned
        rotation, _, initial_patch_size, mirror_axes = planned
        in_plane_axes = tuple(axis + 1 for axis in mirror_axes or ())  # behind the axis of the slices
        return rotation, True, np.array([self.slices_in_slab, *initial_patch_size]), in_plane_axes

    def get_training_transforms(self, *arguments: Any, **options: Any) -> ComposeTransforms:
        return with_blank_padding(super().get_training_transforms(*arguments, **options))


@contextmanager
def using_configuration(trainer: ExtTrainer, configuration: ConfigurationManager) -> Iterator[None]:
    """Lets a trainer see another configuration for a while."""
    before = trainer.configuration_manager
    trainer.configuration_manager = configuration
    try:
        yield
    finally:
        trainer.configuration_manager = before


def slab_configuration(planned: ConfigurationManager, slices: int) -> ConfigurationManager:
    """A 2D configuration whose patch has an axis of slices in front."""
    return ConfigurationManager({**planned.configuration, "patch_size": [slices, *planned.patch_size]})


class BlankPadding(BasicTransform):
    """Sets slices that lie wholly outside of the image to zero again, after noise and the like have changed them.

    So a network can tell padding from slices of the image: padding is constant.
    """

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        """Which slices of (channels, D, *in_plane) are padding."""
        outside = data_dict["segmentation"] == PADDING_LABEL
        return {"is_padding": outside.transpose(0, 1).flatten(start_dim=1).all(dim=1)}  # (D, channels * voxels)

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        img[:, params["is_padding"]] = 0
        return img

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        return segmentation


def with_blank_padding(transforms: ComposeTransforms) -> ComposeTransforms:
    """The same transforms with `BlankPadding` before the one that removes the label of padding."""
    steps = list(transforms.transforms)
    position = next(
        index
        for index, step in enumerate(steps)
        if isinstance(step, RemoveLabelTansform) and step.label_value == PADDING_LABEL
    )
    return ComposeTransforms([*steps[:position], BlankPadding(), *steps[position:]])
