"""The base class of all trainer parts: hooks, atomically written checkpoints, schedules by epoch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_ext.files.atomic import atomic_path
from nnunet_ext.files.checkpoints import EXTRA_STATE_KEY, numpy_scalars_allowed, plain_network, save_checkpoint
from nnunet_ext.losses.added_terms import AddedTerm, LossWithTerms
from nnunet_ext.trainers.losses.one_output import loss_of_one_output, with_loss_of_one_output

NNUNET_DEFAULTS: dict[str, float] = {"initial_lr": 1e-2, "num_epochs": 1000}


class ExtTrainer(nnUNetTrainer):
    """The base class of all parts.

    A part overrides hooks of nnU-Net or of this class and calls `super()`. Parts compose by multiple inheritance,
    and none may change the constructor, because nnU-Net re-creates trainers from its five arguments.
    """

    network_parts: tuple[str, ...] = ()  # the parts of the trainer's name that change the network

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's own default
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.set_hyperparameters()

    def set_hyperparameters(self) -> None:
        """Hook: overrides the defaults that nnU-Net's constructor has just set. Call `super()` first."""

    def replace_defaults(self, **values: float) -> None:
        """Sets `initial_lr` or `num_epochs` where it is nnU-Net's default: what a stock variant has set stays."""
        for name, value in values.items():
            if getattr(self, name) == NNUNET_DEFAULTS[name]:
                setattr(self, name, value)

    def initialize(self) -> None:
        """nnU-Net's initialisation with the network of the training, see `training_network`.

        nnU-Net asks `build_network_architecture` for the network. It is replaced on this object only, because
        prediction asks the class for the plain network.
        """
        build_plain = self.network_builder()

        @functools.wraps(build_plain)  # nnU-Net inspects the signature
        def build(*arguments: Any) -> nn.Module:
            return self.training_network(build_plain(*arguments))

        self.__dict__["build_network_architecture"] = build
        try:
            super().initialize()
        finally:
            del self.__dict__["build_network_architecture"]

    def network_builder(self) -> Callable[..., nn.Module]:
        """Hook: the function that builds the planned network for training; prediction asks the class itself."""
        return self.build_network_architecture

    def training_network(self, network: nn.Module) -> nn.Module:
        """Hook: wraps the planned network for training; the state dict must remain that of the planned network."""
        return network

    def loss_of_one_output(self, planned: nn.Module) -> nn.Module:
        """Hook: the loss of one output (B, C, *spatial) and its target; `planned` is nnU-Net's."""
        return planned

    @property
    def patch_spacing_mm(self) -> tuple[float, ...]:
        """The spacing along the spatial axes of a patch; override it where patches have other axes than the plans."""
        axes = len(self.configuration_manager.patch_size)
        return tuple(self.configuration_manager.spacing)[-axes:]

    def loss_terms(self) -> list[AddedTerm]:
        """Hook: terms added to the loss at full resolution. Extend the list of `super()`; see `LossTermPart`."""
        return []

    def _build_loss(self) -> nn.Module:
        """nnU-Net's loss, with the parts' loss of one output inside and their terms added, in any order of parts."""
        planned = super()._build_loss()
        loss = with_loss_of_one_output(planned, self.loss_of_one_output(loss_of_one_output(planned)))
        terms = self.loss_terms()
        if not terms:
            return loss
        with_terms = LossWithTerms(loss, terms).to(self.device)
        with_terms.set_epoch(self.current_epoch, self.num_epochs)
        return with_terms

    def extra_state(self) -> dict[str, Any]:
        """Hook: state that a resumed training needs beyond nnU-Net's own checkpoint. Extend that of `super()`."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Hook: restores what `extra_state` returned. Call `super()`."""

    @property
    def writes_files(self) -> bool:
        """Whether this process writes checkpoints: rank 0, unless checkpointing was disabled."""
        return self.local_rank == 0 and not self.disable_checkpointing

    def save_checkpoint(self, filename: str) -> None:
        """Writes nnU-Net's checkpoint and the parts' state atomically: a killed run leaves no partial file."""
        if not self.writes_files:
            super().save_checkpoint(filename)  # logs that checkpointing is disabled
            return
        with atomic_path(filename) as temporary:
            super().save_checkpoint(str(temporary))
            state = self.extra_state()
            if state:
                checkpoint = torch.load(temporary, map_location="cpu", weights_only=False)  # written one line above
                checkpoint[EXTRA_STATE_KEY] = state
                torch.save(checkpoint, temporary)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Loads nnU-Net's checkpoint, then the parts' state. Needs a file name: nnU-Net 2.8.1 fails on a dict."""
        if not self.was_initialized:
            self.initialize()  # not below: a part may read checkpoints there
        with numpy_scalars_allowed():  # nnU-Net's variant warmup reads the file with weights_only=True
            super().load_checkpoint(filename_or_checkpoint)
        if isinstance(filename_or_checkpoint, str):
            checkpoint = torch.load(filename_or_checkpoint, map_location=self.device, weights_only=False)
            self.load_extra_state(checkpoint.get(EXTRA_STATE_KEY, {}))

    def save_weights(self, path: Path, weights: dict[str, torch.Tensor]) -> None:
        """Writes weights with only what prediction needs: trainer name, init arguments, mirror axes.

        Stock `nnUNetv2_predict -chk NAME` reads such a file; training cannot continue from it.
        """
        save_checkpoint(self.prediction_checkpoint(weights), path)

    def prediction_checkpoint(self, weights: dict[str, torch.Tensor]) -> dict[str, Any]:
        """The checkpoint with these weights that stock nnU-Net needs for prediction."""
        return {
            "network_weights": weights,
            "init_args": self.my_init_kwargs,
            "trainer_name": type(self).__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
        }

    @property
    def plain_network(self) -> nn.Module:
        """The planned network, without the wrappers of training, DDP and torch.compile."""
        return plain_network(self.network)


class EpochSchedule:
    """A learning-rate scheduler that depends on the epoch only, so that there is no state to resume.

    Args:
        optimizer: the optimizer whose parameter groups get the learning rate.
        learning_rate_at: returns the learning rate of an epoch, given its index from 0.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, learning_rate_at: Callable[[int], float]) -> None:
        self.optimizer = optimizer
        self.learning_rate_at = learning_rate_at

    def step(self, epoch: int) -> None:
        """Sets the learning rate of this epoch; nnU-Net calls it at the start of every training epoch."""
        learning_rate = self.learning_rate_at(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def get_last_lr(self) -> list[float]:
        """The current learning rate of each parameter group, under the name that torch's schedulers use."""
        return [group["lr"] for group in self.optimizer.param_groups]
