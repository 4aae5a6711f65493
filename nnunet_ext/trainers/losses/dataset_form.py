"""What losses need to know of a trainer's dataset and configuration."""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.losses.targets import OutputForm


def output_form(trainer: nnUNetTrainer) -> OutputForm:
    """Whether its outputs are regions, and what its targets mark as ignored."""
    return OutputForm(trainer.label_manager.has_regions, trainer.label_manager.ignore_label)


def patch_spacing_mm(trainer: nnUNetTrainer) -> tuple[float, ...]:
    """The spacing along the axes of a patch."""
    axes = len(trainer.configuration_manager.patch_size)
    return tuple(trainer.configuration_manager.spacing)[-axes:]
