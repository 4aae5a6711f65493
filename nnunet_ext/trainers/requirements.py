"""Checks what the parts of a trainer require of plans and dataset, when the trainer is constructed."""

from __future__ import annotations

from collections.abc import Callable

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.trainers.base import ExtTrainer
from nnunet_ext.trainers.own_steps import OwnStepsTrainer
from nnunet_ext.trainers.part import Requirement

UNETS = ("PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet")
STOCK_NETWORKS = "dynamic_network_architectures."


class RequirementError(ValueError):
    """The plans or the dataset do not meet a part's requirement; the message names both and says what to do."""


class CheckedRequirements(ExtTrainer):
    """The first base class of every trainer whose parts have requirements.

    Attributes:
        requirements: pairs of a word of the name and a requirement of that part.
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
    """The planned network if it is one of nnU-Net's but not a U-Net, else "".

    A third-party network may have nnU-Net's encoder and decoder; the part checks it once it is built.
    """
    name = trainer.configuration_manager.network_arch_class_name
    is_known = name.startswith(STOCK_NETWORKS)
    return name if is_known and name.rpartition(".")[2] not in UNETS else ""


def found_regions(trainer: nnUNetTrainer) -> str:
    """The dataset's regions, or "" if it has labels instead."""
    if not trainer.label_manager.has_regions:
        return ""
    regions = [name for name in trainer.dataset_json["labels"] if name not in ("background", "ignore")]
    return f"the regions {', '.join(regions)}"


def own_steps_of(trainer: nnUNetTrainer) -> str:
    """What a training without labels is called in the message, "" for any other training."""
    return "a training without labels" if isinstance(trainer, OwnStepsTrainer) else ""


def plane_of(trainer: nnUNetTrainer) -> str:
    """The configuration if it is not 3D, else ""."""
    axes = len(trainer.configuration_manager.patch_size)
    return f"the configuration {trainer.configuration_name} with {axes} spatial axes" if axes != 3 else ""


# For each requirement, a function that returns what was found instead; "" if it is met or cannot be checked yet.
INSTEAD: dict[Requirement, Callable[[nnUNetTrainer], str]] = {
    Requirement.UNET: another_network,
    Requirement.LEVELS: another_network,
    Requirement.LABELS: found_regions,
    Requirement.SEGMENTATION: own_steps_of,
    Requirement.ONE_NETWORK: lambda trainer: "",  # the table says which parts mix networks
    Requirement.THREE_AXES: plane_of,
}
