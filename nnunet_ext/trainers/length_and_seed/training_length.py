"""The length of a training: epochs, and iterations per epoch."""

from __future__ import annotations

from nnunet_ext.trainers.base import ExtTrainer

VALIDATION_SHARE = 5  # nnU-Net validates on 50 batches per 250 training iterations


class Epochs(ExtTrainer):
    """`<n>epochs`: trains for n epochs."""

    epochs: int = 1000

    def set_hyperparameters(self) -> None:
        super().set_hyperparameters()
        self.num_epochs = self.epochs


class Iterations(ExtTrainer):
    """`<n>iters`: n training iterations per epoch, and n / 5 (at least 1) for the online validation."""

    iterations: int = 250

    def set_hyperparameters(self) -> None:
        super().set_hyperparameters()
        self.num_iterations_per_epoch = self.iterations
        self.num_val_iterations_per_epoch = max(1, self.iterations // VALIDATION_SHARE)
