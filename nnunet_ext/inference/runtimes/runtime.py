"""The protocol of a runtime, which runs the members of one model on patches."""

from __future__ import annotations

from typing import Protocol

import torch

from nnunet_ext.inference.runtimes.batch_size import BatchSize
from nnunet_ext.models.members import Member


class CannotRunError(ValueError):
    """A runtime cannot run a model here; the message says why."""


class Runtime(Protocol):
    """Runs the network of one model and swaps its weights from member to member."""

    @property
    def classifiers(self) -> int:
        """Number of networks that run over a volume separately; 1 except for mixtures."""

    def load(self, member: Member) -> None:
        """Runs with the weights of this member from now on.

        Raises:
            MemberError: if its weights do not fit the network.
        """

    def run(self, patches: torch.Tensor, classifier: int = 0) -> torch.Tensor:
        """Runs the network on patches.

        Args:
            patches: (B, channels, *patch) on any device.
            classifier: which of the networks of a mixture to run.

        Returns:
            Logits (B, C, *patch) in fp32, on the patches' device.
        """

    def fitting_batch_size(self, patch: torch.Tensor) -> BatchSize:
        """The batch size for patches like this one, (channels, *patch); found once, and kept after it was halved."""
