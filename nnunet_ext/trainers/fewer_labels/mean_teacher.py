"""MeanTeacher: the network agrees with the moving average of its weights on images without labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnunet_ext.losses.added_terms import AddedTerm
from nnunet_ext.losses.consistency import TeacherConsistency
from nnunet_ext.losses.ramps import GaussianRamp, Ramp
from nnunet_ext.trainers.averaging.ema import EMA
from nnunet_ext.trainers.fewer_labels.unlabelled_part import UnlabelledPart

NAME = "MeanTeacher"
FIRST_ENTROPY = 0.75  # of the maximum; it grows to 1 with the ramp


class MeanTeacher(EMA, UnlabelledPart):
    """Adds the consistency with a teacher, the moving average, which is saved as `checkpoint_ema.pth`.

    Each iteration has a batch of labelled and one of unlabelled images. With a weight of 0 no unlabelled image is
    loaded, and the network is that of a training without this part, bit for bit.

    Raises:
        ValueError: if the configuration is the second stage of a cascade.
        FileNotFoundError: when the training begins, if no image without labels was preprocessed.
    """

    unlabelled_term = NAME
    ema_decay: float = 0.99
    consistency_ramp: Ramp = GaussianRamp(0.1, end=0.4)
    entropy_ramp: Ramp = GaussianRamp(1.0, end=0.4)
    consistency_noise: float = 0.1  # of images with a standard deviation of 1

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
        return [*super().loss_terms(), AddedTerm(NAME, self.consistency, self.consistency_ramp, by_case=False)]

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        ramp = self.entropy_ramp(self.current_epoch, self.num_epochs)
        self.consistency.most_entropy = FIRST_ENTROPY + (1 - FIRST_ENTROPY) * ramp

    def hand_over(self, batch: dict[str, Any] | None) -> None:
        """Gives images to the term, or takes them away."""
        self.consistency.images = None if batch is None else batch["data"].to(self.device, non_blocking=True)
