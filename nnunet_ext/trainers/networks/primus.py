"""nnU-Net's Primus instead of the planned network (arXiv 2503.01835), so that it combines with other parts."""

from __future__ import annotations

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunet_ext.schedules import FineTuningPlan
from nnunet_ext.trainers.base import EpochSchedule
from nnunet_ext.trainers.networks.network_part import NetworkPart
from nnunet_ext.trainers.stock_variants import stock_class

TOKEN = 8  # voxels of a token along each axis
PEAK_LR = 3e-4
WEIGHT_DECAY = 5e-2
BETAS = (0.9, 0.98)
WARM_UP_EPOCHS = 50


class Primus(NetworkPart):
    """The network, optimizer and schedule of nnU-Net's own `nnUNet_Primus_<size>_Trainer`, without deep supervision.

    Their names cannot hold other parts, and their schedule is bound to their optimizer. Here another part may set the
    schedule. Gradients are clipped at nnU-Net's norm.
    """

    primus_size: str = "M"
    initial_lr: float
    weight_decay: float

    @classmethod
    def build_network(
        cls, configuration: ConfigurationManager, input_channels: int, outputs: int, deep_supervision: bool
    ) -> nn.Module:
        """See `NetworkPart`.

        Raises:
            ValueError: if the patch is not made of whole tokens, or this nnU-Net has no Primus.
        """
        patch_size = tuple(configuration.patch_size)
        if len(patch_size) != 3 or any(length % TOKEN for length in patch_size):
            raise ValueError(
                f"Primus{cls.primus_size} needs a 3D patch whose axes are multiples of {TOKEN}; found {patch_size}. "
                f"Train a 3D configuration, or change patch_size in the plans."
            )
        name = f"nnUNet_Primus_{cls.primus_size}_Trainer"
        stock = stock_class(name)
        if stock is None:
            raise ValueError(f"Primus{cls.primus_size} needs an nnU-Net that has {name}. Update nnunetv2.")
        return stock.build_network_architecture(None, configuration, input_channels, outputs, False)

    def set_hyperparameters(self) -> None:
        super().set_hyperparameters()
        self.initial_lr = PEAK_LR
        self.weight_decay = WEIGHT_DECAY
        self.enable_deep_supervision = False

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, EpochSchedule]:
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.initial_lr, weight_decay=self.weight_decay, betas=BETAS
        )
        plan = FineTuningPlan(
            self.num_epochs, decoder_epochs=0, network_epochs=WARM_UP_EPOCHS, peak_lr=self.initial_lr
        )
        return optimizer, EpochSchedule(optimizer, plan.learning_rate_at)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Does nothing: the network has one output."""
