"""The trainer that `checkpoint_posterior.pth` names: it builds the ensemble for the stock predictor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from torch import nn

from nnunet_ext.architectures.posterior import PosteriorNetwork
from nnunet_ext.trainers.base import ExtTrainer


class Posterior(ExtTrainer):
    """Builds M copies of the planned network in one network; for prediction only."""

    posterior_size: int = 1

    @classmethod
    def build_network_architecture(  # a classmethod, so that super() finds other parts
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = False,
    ) -> nn.Module:
        """One network with M copies of the network that the other parts build, without deep supervision."""
        build = super().build_network_architecture
        return PosteriorNetwork(
            [
                build(plans_manager, configuration_manager, num_input_channels, num_output_channels, False)
                for _ in range(cls.posterior_size)
            ]
        )

    def initialize(self) -> NoReturn:
        """Refuses to train.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            f"{type(self).__name__} only predicts: its weights are samples that a Cyclical training wrote. "
            f"Train with -tr nnUNetTrainerCyclical instead."
        )


def posterior_trainer_name(network_parts: Sequence[str], members: int) -> str:
    """The name of the trainer that builds a posterior, for example `nnUNetTrainer_BN_posterior30`."""
    return "_".join(["nnUNetTrainer", *network_parts, f"posterior{members}"])
