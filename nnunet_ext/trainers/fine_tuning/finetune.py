"""Fine-tuning of pre-trained weights in stages: decoder, then the whole network (arXiv 2410.23132)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from nnunet_ext.architectures.feature_taps import is_unet
from nnunet_ext.architectures.weight_transfer import input_block, transfer_weights
from nnunet_ext.files.checkpoints import load_checkpoint, plain_network
from nnunet_ext.schedules import FineTuningPlan, FineTuningStage
from nnunet_ext.trainers.base import EpochSchedule, ExtTrainer
from nnunet_ext.trainers.fine_tuning.incoming_weights import (
    PretrainedWeightsError,
    missing_weights_message,
    receive_weights,
    require_encoder,
    stop_receiving,
    transfer_lines,
)


class Finetune(ExtTrainer):
    """Starts from the encoder of `-pretrained_weights`: decoder warm-up, network warm-up, decay.

    In the decoder warm-up the encoder is frozen: its parameters are not in the optimizer and have no gradient. What
    trains, and at which rate, depends on the epoch only. The encoder is released with a new optimizer.
    """

    num_epochs: int
    network: Any
    warm_up: int = 50  # epochs of each warm-up
    decoder_warm_up: int | None = None  # epochs of this one, if another number
    network_warm_up: int | None = None
    peak_lr: float = 1e-3
    with_decoder: bool = False  # transfer the decoder as well, all but its segmentation layers
    frozen_encoder: bool = False  # in all epochs
    shallow_stages: int | None = None  # of the encoder only the stem and so many stages train; None: all
    trained_stem: bool = False  # train the block that reads the image in the decoder warm-up as well
    stage: FineTuningStage = "decoder warm-up"
    has_weights: bool = False
    not_transferred: tuple[str, ...] = ()  # the tensors that were asked for and keep their initial weights

    def set_hyperparameters(self) -> None:
        super().set_hyperparameters()
        self.replace_defaults(initial_lr=self.peak_lr, num_epochs=self.num_epochs + sum(self.warm_up_epochs))

    @property
    def warm_up_epochs(self) -> tuple[int, int]:
        """Epochs of the decoder's and the network's warm-up; with a frozen encoder there is only one."""
        decoder = self.warm_up if self.decoder_warm_up is None else self.decoder_warm_up
        network = self.warm_up if self.network_warm_up is None else self.network_warm_up
        return (0, network) if self.frozen_encoder else (decoder, network)

    @property
    def plan(self) -> FineTuningPlan:
        """The stages of this training."""
        decoder, network = self.warm_up_epochs
        return FineTuningPlan(
            self.num_epochs, decoder_epochs=decoder, network_epochs=network, peak_lr=self.initial_lr
        )

    # --- weights ---

    def training_network(self, network: nn.Module) -> nn.Module:
        if not is_unet(network):
            raise ValueError(
                f"{type(self).__name__} needs a U-Net with nnU-Net's encoder and decoder (PlainConvUNet, "
                f"ResidualEncoderUNet); found {type(network).__name__}. Use other parts or other plans."
            )
        return super().training_network(network)

    def initialize(self) -> None:
        """nnU-Net's initialisation, after which the network receives the pre-trained weights."""
        self.stage = self.plan.stage_at(self.current_epoch)
        super().initialize()
        receive_weights(plain_network(self.network), self.load_pretrained)

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Copies what fits of a checkpoint's weights into the network, and logs what became of them.

        Raises:
            PretrainedWeightsError: if less than 90 % of the encoder arrives.
        """
        stop_receiving(plain_network(self.network))
        report = transfer_weights(self.plain_network, weights, with_decoder=self.with_decoder)
        for line in transfer_lines(report):
            self.print_to_log_file(line)
        require_encoder(report)
        self.has_weights = True
        self.not_transferred = tuple(report.left)
        self.enter(self.stage)

    def on_train_start(self) -> None:
        """nnU-Net's start.

        Raises:
            PretrainedWeightsError: if there are neither pre-trained weights nor a checkpoint to continue from.
        """
        if not self.was_initialized:
            self.initialize()
        stop_receiving(plain_network(self.network))
        if not self.has_weights:
            raise PretrainedWeightsError(missing_weights_message(type(self).__name__))
        super().on_train_start()
        plan = self.plan
        self.print_to_log_file(
            f"Fine-tuning: decoder warm-up until epoch {plan.network_start}, network warm-up until epoch "
            f"{plan.decay_start}, {plan.total_epochs} epochs in all, peak rate {plan.peak_lr:g}."
        )

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Loads a checkpoint of this training into the optimizer of the stage that wrote it."""
        if not self.was_initialized:
            self.initialize()
        stop_receiving(plain_network(self.network))
        checkpoint = (
            load_checkpoint(filename_or_checkpoint, mmap=True)
            if isinstance(filename_or_checkpoint, str)
            else filename_or_checkpoint
        )
        self.enter_stage_of(checkpoint)
        del checkpoint  # Windows keeps a mapped file locked
        super().load_checkpoint(filename_or_checkpoint)
        self.has_weights = True

    # --- stages ---

    def on_train_epoch_start(self) -> None:
        self.enter(self.plan.stage_at(self.current_epoch))
        super().on_train_epoch_start()
        self.keep_frozen_statistics()

    def enter_stage_of(self, checkpoint: Mapping[str, Any]) -> None:
        """Hook: enters the stage that wrote a checkpoint, so that its optimizer fits. Call `super()` last."""
        self.enter(self.plan.stage_at(checkpoint["current_epoch"] - 1))  # a checkpoint stores the next epoch

    def enter(self, stage: FineTuningStage) -> None:
        """Begins a stage, with a new optimizer if other parameters train than before."""
        self.stage = stage
        if self.frozen_parameters() == {id(each) for each in self.network.parameters() if not each.requires_grad}:
            return
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        torch.compiler.reset()  # torch 2.6 does not notice that parameters of a compiled network train again
        if isinstance(self.network, DistributedDataParallel):  # it expects gradients of what trained when it was made
            self.network = DistributedDataParallel(self.network.module, device_ids=self.network.device_ids)
        self.print_to_log_file(f"Fine-tuning: {stage}. {self.trained_text()}")

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, EpochSchedule]:
        frozen = self.frozen_parameters()
        for parameter in self.network.parameters():
            parameter.requires_grad_(id(parameter) not in frozen)
        optimizer, _ = super().configure_optimizers()
        for group in optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
        return optimizer, EpochSchedule(optimizer, self.plan.learning_rate_at)

    @property
    def encoder(self) -> Any:
        """The encoder of the plain network."""
        return self.plain_network.encoder

    def trained_modules(self) -> list[nn.Module]:
        """The modules of the encoder that train in the current stage."""
        encoder = self.encoder
        if self.frozen_encoder:
            return []
        if self.stage == "decoder warm-up":
            return [input_block(encoder)] if self.trained_stem else []
        if self.shallow_stages is None:
            return [encoder]
        return [input_block(encoder), *encoder.stages[: self.shallow_stages]]

    def frozen_parameters(self) -> set[int]:
        """Hook: the ids of the parameters that do not train in the current stage. Extend the set of `super()`."""
        trained = {id(parameter) for module in self.trained_modules() for parameter in module.parameters()}
        return {id(parameter) for parameter in self.encoder.parameters()} - trained

    def keep_frozen_statistics(self) -> None:
        """Sets frozen BatchNorm layers to evaluation, because their running statistics would change otherwise."""
        for module in self.plain_network.modules():
            if isinstance(module, _BatchNorm) and not any(each.requires_grad for each in module.parameters()):
                module.eval()

    def trained_text(self) -> str:
        """How many of the network's parameters train, for the log."""
        counts = [(each.numel(), each.requires_grad) for each in self.network.parameters()]
        return f"{sum(n for n, trains in counts if trains)} of {sum(n for n, _ in counts)} parameters train."
