"""What losses need to know of a trainer's dataset and configuration."""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.losses.targets import OutputForm


def output_form(trainer: nnUNetTrainer) -> OutputForm:
    """Whether its outputs are regions, and what its targets mark as ignored."""
    return OutputForm(trainer.label_manager.has_regions, trainer.label_manager.ignore_label)
