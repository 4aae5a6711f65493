"""The base class of parts that also learn from a batch of images without labels in each iteration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_ext.losses.added_terms import finest
from nnunet_ext.trainers.fewer_labels.unlabelled_cases import dataset_of, stop, unlabelled_batches
from nnunet_ext.trainers.losses.loss_term import LossTermPart


class UnlabelledPart(LossTermPart):
    """Hands a batch of images without labels to one of the loss terms, in every iteration in which it has a weight.

    With a weight of 0 no unlabelled image is loaded.

    Raises:
        ValueError: if the configuration is the second stage of a cascade.
        FileNotFoundError: when the training begins, if no image without labels was preprocessed.
    """

    unlabelled_term: str  # its name, which begins every message
    unlabelled: Iterator[dict[str, Any]] | None = None  # once the training begins

    def set_hyperparameters(self) -> None:
        super().set_hyperparameters()
        if self.is_cascaded:
            raise ValueError(
                f"{self.unlabelled_term} needs images alone; {self.configuration_name} also needs the segmentations "
                f"of a previous stage. Train another configuration."
            )

    def batches_without_labels(self) -> Iterator[dict[str, Any]]:
        """Hook: the batches of images without labels."""
        return unlabelled_batches(self, dataset_of(self))

    def hand_over(self, batch: dict[str, Any] | None) -> None:
        """Hook: gives a batch to the term, or takes it away."""
        raise NotImplementedError

    def logits_of(self, network: nn.Module, images: Tensor) -> Tensor:
        """What a network says at full resolution, in the precision that nnU-Net trains in."""
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            return finest(network(images)).float()

    def get_dataloaders(self) -> tuple[Any, Any]:
        loaders = super().get_dataloaders()
        self.unlabelled = self.batches_without_labels()
        return loaders

    @property
    def has_weight(self) -> bool:
        """Whether the weight of the term is above 0 in this epoch."""
        loss = self.loss_with_terms
        return loss.active[[added.name for added in loss.terms].index(self.unlabelled_term)]

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.unlabelled is not None and self.has_weight:
            self.hand_over(next(self.unlabelled))
        try:
            return super().train_step(batch)
        finally:
            self.hand_over(None)

    def on_train_end(self) -> None:
        stop(self.unlabelled)
        super().on_train_end()
