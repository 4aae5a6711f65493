"""MeanTeacher: the network agrees with the moving average of its weights on images without labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_ext.losses.added_terms import AddedTerm, finest
from nnunet_ext.losses.consistency import TeacherConsistency
from nnunet_ext.losses.ramps import GaussianRamp, Ramp
from nnunet_ext.trainers.averaging.ema import EMA
from nnunet_ext.trainers.fewer_labels.unlabelled_cases import stop, unlabelled_batches
from nnunet_ext.trainers.losses.loss_term import LossTermPart

NAME = "MeanTeacher"
FIRST_ENTROPY = 0.75  # of the maximum; it grows to 1 with the ramp


class MeanTeacher(EMA, LossTermPart):
    """Adds the consistency with a teacher, the moving average, which is saved as `checkpoint_ema.pth`.

    Each iteration has a batch of labelled and one of unlabelled images. With a weight of 0 no unlabelled image is
    loaded, and the network is that of a training without this part, bit for bit.

    Raises:
        ValueError: if the configuration is the second stage of a cascade.
        FileNotFoundError: when the training begins, if no image without labels was preprocessed.
    """

    ema_decay: float = 0.99
    consistency_ramp: Ramp = GaussianRamp(0.1, end=0.4)
    entropy_ramp: Ramp = GaussianRamp(1.0, end=0.4)
    consistency_noise: float = 0.1  # of images with a standard deviation of 1
    unlabelled: Iterator[dict[str, Any]] | None = None  # once the training begins

    def set_hyperparameters(self) -> None:
        super().set_hyperparameters()
        if self.is_cascaded:
            raise ValueError(
                f"{NAME} needs images alone; {self.configuration_name} also needs the segmentations of a previous "
                f"stage. Train another configuration."
            )

    def moving_average(self, average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        """Updates the average of one tensor with the decay 1 - 1/(t + 1), at most `ema_decay`."""
        decay = torch.as_tensor(1 - 1 / (updates + 1)).clamp_max(self.ema_decay)
        return torch.lerp(current, average, decay.to(average.dtype))

    def loss_terms(self) -> list[AddedTerm]:
        """The terms of other parts and this one."""
        self.consistency = TeacherConsistency(
            lambda images: self.logits_of(self.network, images),
            lambda images: self.logits_of(self.ema.module.eval(), images),
            regions=self.label_manager.has_regions,
            noise=self.consistency_noise,
        )
        return [*super().loss_terms(), AddedTerm(NAME, self.consistency, self.consistency_ramp)]

    def logits_of(self, network: nn.Module, images: Tensor) -> Tensor:
        """What a network says at full resolution, in the precision that nnU-Net trains in."""
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            return finest(network(images)).float()

    def get_dataloaders(self) -> tuple[Any, Any]:
        loaders = super().get_dataloaders()
        self.unlabelled = unlabelled_batches(self)
        return loaders

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        ramp = self.entropy_ramp(self.current_epoch, self.num_epochs)
        self.consistency.most_entropy = FIRST_ENTROPY + (1 - FIRST_ENTROPY) * ramp

    @property
    def has_weight(self) -> bool:
        """Whether the weight is above 0 in this epoch."""
        loss = self.loss_with_terms
        return loss.active[[added.name for added in loss.terms].index(NAME)]

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.unlabelled is not None and self.has_weight:
            self.consistency.images = next(self.unlabelled)["data"].to(self.device, non_blocking=True)
        try:
            return super().train_step(batch)
        finally:
            self.consistency.images = None

    def on_train_end(self) -> None:
        stop(self.unlabelled)
        super().on_train_end()
