"""Independent runs with seeds of their own: the members of a deep ensemble."""

from __future__ import annotations

import random

import numpy as np
import torch

from nnunet_ext.trainers.base import ExtTrainer


class IndependentMember(ExtTrainer):
    """`member<k>`: seeds initialisation and every epoch from k, so that members differ and each can be repeated.

    A resumed run continues with the numbers that an uninterrupted one draws. Background workers of nnU-Net's
    augmentation seed themselves; only `nnUNet_n_proc_DA=0` makes the batches repeatable, too.
    """

    member: int = 0

    def initialize(self) -> None:
        self.seed_everything(0)
        super().initialize()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.seed_everything(self.current_epoch + 1)

    def seed_everything(self, stage: int) -> None:
        """Seeds Python, NumPy and torch from the member, the rank and the stage (0: weights, e + 1: epoch e)."""
        seed = int(np.random.SeedSequence([self.member, self.local_rank, stage]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
