"""Slice stacks for 2D configurations: consecutive slices of a case, augmented together, instead of single slices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_ext.trainers.base import ExtTrainer
from nnunet_ext.trainers.data.in_plane_blur import with_in_plane_blur
from nnunet_ext.trainers.data.slice_padding import ImagesOfDataset, with_marked_padding

FEWEST_SLICES_FOR_DA5 = 6


class StackLoading(ExtTrainer):
    """Trains 2D configurations on stacks of slices (B, channels, S, *in_plane); 3D configurations keep their patches.

    S is the median number of slices of a case, but at most `most_slices`, and so few that the planned batch makes
    `fewest_stacks` stacks: with fewer independent cases in a batch, networks were worse. `slices_of_name` replaces
    both limits.

    nnU-Net's own loader returns stacks when given a three-dimensional patch size, and its transforms for anisotropic
    3D data ("dummy 2D") rotate and scale all slices of a stack alike, with the parameters that nnU-Net has for the 2D
    patch. The batch size is divided by S and rounded down, so that a batch has about as many slices as planned.

    In 2D and 3D, slices that the loader pads an image with are NaN in all its channels, see `slice_padding`.
    """

    batch_size: int
    most_slices: int = 12
    fewest_stacks: int = 4
    slices_of_name: int | None = None
    slices_in_stack: int
    probabilistic_oversampling: bool

    @property
    def planned_configuration(self) -> ConfigurationManager:
        """The configuration as it is in the plans."""
        return self.plans_manager.get_configuration(self.configuration_name)

    @property
    def trains_on_stacks(self) -> bool:
        """Whether the configuration is 2D."""
        return len(self.planned_configuration.patch_size) == 2

    @property
    def patch_spacing_mm(self) -> tuple[float, ...]:
        """In 2D the median distance of slices first: cases keep theirs."""
        spacing = super().patch_spacing_mm
        if not self.trains_on_stacks:
            return spacing
        return float(self.plans_manager.original_median_spacing_after_transp[0]), *spacing

    def _set_batch_size_and_oversample(self) -> None:
        super()._set_batch_size_and_oversample()  # with DDP the batch size is this process's share
        if self.trains_on_stacks:
            self.slices_in_stack = self.planned_slices_in_stack(at_most=self.batch_size)
            self.batch_size //= self.slices_in_stack
            self.probabilistic_oversampling = True  # choosing by position would never oversample a batch of one

    def planned_slices_in_stack(self, *, at_most: int) -> int:
        """S of the class's docstring, `at_most` what one process loads."""
        median = round(float(self.plans_manager.original_median_shape_after_transp[0]))
        planned = self.planned_configuration.batch_size
        limit = self.slices_of_name or min(self.most_slices, planned // self.fewest_stacks)
        return max(1, min(median, limit, at_most))

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        scales = super()._get_deep_supervision_scales()
        if scales is None or not self.trains_on_stacks:
            return scales
        return [[1.0, *scale] for scale in scales]  # slices are not down-sampled

    def get_dataloaders(self) -> Any:
        if not self.trains_on_stacks:
            return super().get_dataloaders()
        self.require_slices_for_da5()
        self.print_to_log_file(f"Stacks of {self.slices_in_stack} slices, {self.batch_size} stacks per batch.")
        with using_configuration(self, stack_configuration(self.planned_configuration, self.slices_in_stack)):
            return super().get_dataloaders()

    def require_slices_for_da5(self) -> None:
        """Refuses DA5 for thin stacks: it divides the number of slices by 6, which makes some batches fail."""
        if isinstance(self, nnUNetTrainerDA5) and self.slices_in_stack < FEWEST_SLICES_FOR_DA5:
            raise ValueError(
                f"DA5 needs stacks of at least {FEWEST_SLICES_FOR_DA5} slices; this dataset and batch size give "
                f"{self.slices_in_stack}. Leave DA5 out, or raise the batch size in the plans."
            )

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:
        with using_configuration(self, self.planned_configuration):
            planned = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if not self.trains_on_stacks:
            return planned
        rotation, _, initial_patch_size, mirror_axes = planned
        in_plane_axes = tuple(axis + 1 for axis in mirror_axes or ())  # axis 0 is that of the slices
        return rotation, True, np.array([self.slices_in_stack, *initial_patch_size]), in_plane_axes

    def get_tr_and_val_datasets(self) -> tuple[ImagesOfDataset, ImagesOfDataset]:
        training, validation = super().get_tr_and_val_datasets()
        return ImagesOfDataset(training), ImagesOfDataset(validation)

    def get_training_transforms(self, *arguments: Any, **options: Any) -> ComposeTransforms:
        transforms = super().get_training_transforms(*arguments, **options)
        return with_marked_padding(with_in_plane_blur(transforms) if self.trains_on_stacks else transforms)

    def get_validation_transforms(self, *arguments: Any, **options: Any) -> ComposeTransforms:
        return with_marked_padding(super().get_validation_transforms(*arguments, **options))


@contextmanager
def using_configuration(trainer: ExtTrainer, configuration: ConfigurationManager) -> Iterator[None]:
    """Gives a trainer another configuration inside the `with` block."""
    before = trainer.configuration_manager
    trainer.configuration_manager = configuration
    try:
        yield
    finally:
        trainer.configuration_manager = before


def stack_configuration(planned: ConfigurationManager, slices: int) -> ConfigurationManager:
    """A 2D configuration with an axis of slices prepended to its patch size."""
    return ConfigurationManager({**planned.configuration, "patch_size": [slices, *planned.patch_size]})
