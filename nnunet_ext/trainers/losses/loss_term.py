"""The base class of parts that add a term to the loss: weight per epoch, extra targets, curves in the log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.utilities.collate_outputs import collate_outputs

from nnunet_ext.losses.added_terms import LossWithTerms
from nnunet_ext.trainers.base import ExtTrainer
from nnunet_ext.trainers.curves import log_curve, mean_over_processes, values_before
from nnunet_ext.trainers.losses.extra_targets import split_extras, with_extras
from nnunet_ext.trainers.progress_plot import append_curves

CURVE_PREFIX = "loss term "


class LossTermPart(ExtTrainer):
    """A part that adds a term to the loss at full resolution; other outputs of deep supervision keep the base loss.

    A part extends `loss_terms`, a hook of `ExtTrainer`:

        class Boundary(LossTermPart):
            def loss_terms(self):
                return [*super().loss_terms(), AddedTerm("Boundary", BoundaryLoss(...), LinearRamp(0, 0.5, 0.3, 0.6))]

    Several such parts, a part that replaces the loss, and self-distillation can be combined in any order.
    """

    @property
    def loss_with_terms(self) -> LossWithTerms:
        """The module of the loss that holds the terms."""
        return next(module for module in self.loss.modules() if isinstance(module, LossWithTerms))

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        means = {
            added.name: values_before(self.logger, curve, self.current_epoch)
            for added, curve in zip(self.loss_with_terms.terms, self.curve_names, strict=True)
        }
        self.loss_with_terms.set_epoch(self.current_epoch, self.num_epochs, means)

    def get_training_transforms(self, *arguments: Any, **options: Any) -> ComposeTransforms:
        transforms = super().get_training_transforms(*arguments, **options)
        return with_extras(transforms, self.loss_with_terms.extras_of_target)

    def get_validation_transforms(self, *arguments: Any, **options: Any) -> ComposeTransforms:
        transforms = super().get_validation_transforms(*arguments, **options)
        return with_extras(transforms, self.loss_with_terms.extras_of_target)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        outputs = self.step_with_extras(super().train_step, batch)
        values = self.loss_with_terms.values.tolist()
        return {**outputs, **dict(zip(self.curve_names, values, strict=True))}

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self.step_with_extras(super().validation_step, batch)

    def step_with_extras(
        self, step: Callable[[dict[str, Any]], dict[str, Any]], batch: dict[str, Any]
    ) -> dict[str, Any]:
        """Runs one of nnU-Net's steps with the extra targets of the batch passed to the terms."""
        loss = self.loss_with_terms
        batch, extras = split_extras(batch, list(loss.extras_of_target), supervised=self.enable_deep_supervision)
        loss.extras = {name: extra.to(self.device, non_blocking=True) for name, extra in extras.items()}
        try:
            return step(batch)
        finally:
            loss.extras = {}

    @property
    def curve_names(self) -> list[str]:
        """The names of the terms' values in nnU-Net's log."""
        return [CURVE_PREFIX + added.name for added in self.loss_with_terms.terms]

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        super().on_train_epoch_end(train_outputs)
        outputs = collate_outputs(train_outputs)
        weights = self.loss_with_terms.weights.tolist()
        for name, weight in zip(self.curve_names, weights, strict=True):
            mean = mean_over_processes(outputs[name])  # NaN where the term was not computed
            log_curve(self.logger, name, mean, self.current_epoch)
            self.print_to_log_file(f"{name}: {mean:.4f}, weight {weight:.4g}")

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        if self.local_rank == 0:
            epochs = self.current_epoch  # nnU-Net has counted this one already
            curves = {name: self.logger.get_value(name, None)[:epochs] for name in self.curve_names}
            append_curves(Path(self.output_folder) / "progress.png", curves)
