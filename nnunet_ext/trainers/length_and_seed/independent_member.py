"""Independent trainings with their own seeds: the members of a deep ensemble (arXiv 1612.01474)."""

from __future__ import annotations

import random

import numpy as np
import torch

from nnunet_ext.trainers.base import ExtTrainer


class IndependentMember(ExtTrainer):
    """`member<k>`: seeds the initial weights and every epoch from k, so that members differ and can be repeated.

    A resumed training draws the same random numbers as an uninterrupted one. The background workers of nnU-Net's
    augmentation seed themselves, so batches are repeatable only with `nnUNet_n_proc_DA=0`.
    """

    member: int = 0

    def initialize(self) -> None:
        self.seed_everything(0)
        super().initialize()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.seed_everything(self.current_epoch + 1)

    def seed_everything(self, stage: int) -> None:
        """Seeds Python, NumPy and torch from member, rank and stage (0: initial weights, e + 1: epoch e)."""
        seed = int(np.random.SeedSequence([self.member, self.local_rank, stage]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
