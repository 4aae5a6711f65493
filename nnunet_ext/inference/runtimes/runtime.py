"""What a runtime is: the members of one model as functions of patches."""

from __future__ import annotations

from typing import Protocol

import torch

from nnunet_ext.inference.runtimes.batch_size import BatchSize
from nnunet_ext.models.members import Member


class Runtime(Protocol):
    """Runs the network of one model, whose weights are exchanged from member to member."""

    @property
    def classifiers(self) -> int:
        """How many networks go over a volume, each on its own; 1 but for mixtures."""

    def load(self, member: Member) -> None:
        """Lets the network be this member from now on.

        Raises:
            MemberError: if its weights do not fit the network.
        """

    def run(self, patches: torch.Tensor, classifier: int = 0) -> torch.Tensor:
        """Logits (B, C, *patch) in fp32 of patches (B, channels, *patch), where the patches are."""

    def fitting_batch_size(self, patch: torch.Tensor) -> BatchSize:
        """How many patches like this one, (channels, *patch), fit at a time; found once, kept when it was halved."""
