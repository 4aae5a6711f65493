"""The test-time transforms of an ensemble: what they cost, and where there are too few of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.transforms.transform import Transform
from nnunet_ext.models.model import Model

logger = logging.getLogger(__name__)
cost_logger = logging.getLogger("nnunet_ext.cost")  # what a case costs, before the first one


def transforms_of(of_model: Sequence[Pass]) -> list[Transform]:
    """The different transforms among the passes of one model, in their order."""
    return list(dict.fromkeys(transform for step in of_model for transform in step.transforms))


def cost_in_passes(models: Sequence[Model], passes: Sequence[Sequence[Pass]]) -> list[str]:
    """What a case costs, one line per model: members x transforms = runs of a network over the whole case.

    Args:
        models: the models of the ensemble.
        passes: the passes of each model.
    """
    lines = []
    for model, of_model in zip(models, passes, strict=True):
        transforms = transforms_of(of_model)
        runs = sum(len(step.transforms) for step in of_model)
        lines.append(
            f"{model.folder.name}: {_counted(len(model.members), 'member')} x "
            f"{_counted(len(transforms), 'transform')} = {_counted(runs, 'pass', 'passes')} per case "
            f"({', '.join(transform.name for transform in transforms)})"
        )
    return lines


def log_cost(models: Sequence[Model], passes: Sequence[Sequence[Pass]]) -> None:
    """Logs what a case costs, see `cost_in_passes`."""
    for line in cost_in_passes(models, passes):
        cost_logger.info(line)


def warn_of_single_transforms(passes: Sequence[Sequence[Pass]]) -> None:
    """Warns that `--tta-members` adds nothing where each member has one transform."""
    if all(len(transforms_of(of_model)) == 1 for of_model in passes):
        logger.warning(
            "--tta-members adds nothing: with --tta none, and with --tta flips where the training did not mirror, "
            "there is one transform. For more members use --tta rot90 or full, more folds, --members samples or "
            "--members mc-dropout."
        )


def require_several_transforms(models: Sequence[Model], passes: Sequence[Sequence[Pass]]) -> None:
    """Refuses the map of the variance between transforms if no model has more than one.

    Raises:
        ValueError: if there is nothing that could vary.
    """
    if all(len(transforms_of(of_model)) == 1 for of_model in passes):
        mirrored = any(model.mirror_axes for model in models)
        raise ValueError(
            f"--maps tta_variance needs several test-time transforms per member; found "
            f"{transforms_of(passes[0])[0].name} alone"
            f"{'' if mirrored else ', because the members were trained without mirroring'}. Use --tta rot90 or "
            f"--tta full, or leave out tta_variance."
        )


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
