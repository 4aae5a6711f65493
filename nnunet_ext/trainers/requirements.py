"""What the parts of a trainer need of its plans and its dataset, looked at when it is constructed."""

from __future__ import annotations

from collections.abc import Callable

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.trainers.base import ExtTrainer
from nnunet_ext.trainers.own_steps import OwnStepsTrainer
from nnunet_ext.trainers.part import Requirement

UNETS = ("PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet")
STOCK_NETWORKS = "dynamic_network_architectures."


class RequirementError(ValueError):
    """A part needs what the plans or the dataset do not have; the message names both and says what to do."""


class CheckedRequirements(ExtTrainer):
    """The first base of a trainer whose parts require something.

    Attributes:
        requirements: the words of the name and what each requires.
    """

    requirements: tuple[tuple[str, Requirement], ...] = ()

    def set_hyperparameters(self) -> None:
        super().set_hyperparameters()
        for word, requirement in self.requirements:
            found = INSTEAD[requirement](self)
            if found:
                raise RequirementError(
                    f"{type(self).__name__} cannot be trained: {word} needs {requirement.words}; found {found}. "
                    f"Leave {word} out, or {requirement.remedy}."
                )


def another_network(trainer: nnUNetTrainer) -> str:
    """The planned network if it is one of nnU-Net's that is no U-Net, else "".

    A network of somebody else's may have nnU-Net's encoder and decoder; the part looks at it when it is built.
    """
    name = trainer.configuration_manager.network_arch_class_name
    is_known = name.startswith(STOCK_NETWORKS)
    return name if is_known and name.rpartition(".")[2] not in UNETS else ""


def found_regions(trainer: nnUNetTrainer) -> str:
    """The dataset's regions, or "" if it is one of labels."""
    if not trainer.label_manager.has_regions:
        return ""
    regions = [name for name in trainer.dataset_json["labels"] if name not in ("background", "ignore")]
    return f"the regions {', '.join(regions)}"


def own_steps_of(trainer: nnUNetTrainer) -> str:
    """What a training is that owns its steps, else ""."""
    return "one that learns without labels" if isinstance(trainer, OwnStepsTrainer) else ""


def plane_of(trainer: nnUNetTrainer) -> str:
    """The configuration if it is 2D, else ""."""
    axes = len(trainer.configuration_manager.patch_size)
    return f"the configuration {trainer.configuration_name} with {axes} axes" if axes != 3 else ""


# What was found where a requirement is not met, "" where it is or cannot be told yet. One row a requirement.
INSTEAD: dict[Requirement, Callable[[nnUNetTrainer], str]] = {
    Requirement.UNET: another_network,
    Requirement.LABELS: found_regions,
    Requirement.SEGMENTATION: own_steps_of,
    Requirement.THREE_AXES: plane_of,
}
