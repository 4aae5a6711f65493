"""Checks that a case fits into main memory, before its first member runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnunet_ext.inference.accumulation.resampling import common_box, crop_box
from nnunet_ext.machine.available_memory import available_memory_bytes

if TYPE_CHECKING:
    from nnunet_ext.inference.accumulation.case_frame import PreparedCase
    from nnunet_ext.inference.passes import Pass
    from nnunet_ext.models.model import Model

BYTES_PER_VALUE = 4  # fp32
GIBIBYTE = 1 << 30


class CaseTooLargeError(ValueError):
    """A case is too large for the available memory; the message gives both figures."""


def prediction_bytes(
    classes: int,
    box_shape: Sequence[int],
    network_shape: Sequence[int],
    *,
    with_variance: bool = False,
    by_fold: bool = False,
    network_volumes: int = 1,
) -> int:
    """A lower bound of the memory in bytes that predicting a case takes, for any number of members.

    It counts the volumes with one value per class and voxel: a member's logits at the network's resolution, and the
    ensemble's mean and, if tracked, its variance at the image's resolution. Everything else is smaller: maps and
    label maps have one value per voxel, and a member's probabilities at the image's resolution exist a few slices at
    a time.

    Args:
        classes: number of classes or regions.
        box_shape: shape of the image, without the background that nnU-Net crops away.
        network_shape: shape of the padded image at the network's resolution.
        with_variance: whether the variance is tracked as well.
        by_fold: whether the mean of a fold is kept as well.
        network_volumes: volumes of all classes at the network's resolution, see `network_volumes_of`.
    """
    at_image = (1 + with_variance + by_fold) * math.prod(box_shape)
    return BYTES_PER_VALUE * classes * (at_image + network_volumes * math.prod(network_shape))


def network_volumes_of(passes: Sequence[Sequence[Pass]], *, transform_variance: bool, adapted: bool = False) -> int:
    """Number of volumes of all classes that exist at a network's resolution at the same time.

    They are the logits of the pass; the sum over its groups of transforms, if there are several; and for the variance
    between transforms the probabilities of one transform with their mean and their squares. With adaptation the
    unadapted logits are kept as well.

    Args:
        passes: the passes of each model.
        transform_variance: whether the variance between transforms is tracked.
        adapted: whether members are adapted to the case.
    """
    steps = [step for of_model in passes for step in of_model]
    several_groups = any(len(step.groups(apart=transform_variance)) > 1 for step in steps)
    return 1 + several_groups + 3 * transform_variance + adapted


def require_memory(needed_bytes: int, available_bytes: int | None, *, case: str) -> None:
    """Refuses a case that needs more memory than is available.

    Args:
        needed_bytes: see `prediction_bytes`.
        available_bytes: see `available_memory_bytes`; None, if unknown, accepts every case.
        case: the case's name.

    Raises:
        CaseTooLargeError: if the case does not fit.
    """
    if available_bytes is not None and needed_bytes > available_bytes:
        raise CaseTooLargeError(
            f"A case must fit into memory; {case} needs at least {needed_bytes / GIBIBYTE:.1f} GiB for the "
            f"probabilities of its classes, and {available_bytes / GIBIBYTE:.1f} GiB are available. Use a machine or "
            f"a job with more memory, leave out --maps variance and tta_variance, or crop the image. -num_parts and "
            f"fewer members do not help: only one case and one member are in memory at a time."
        )


def require_memory_for(
    case: str,
    models: Sequence[Model],
    prepared: Sequence[PreparedCase],
    *,
    variance: bool,
    by_fold: bool,
    network_volumes: int = 1,
) -> None:
    """Refuses a preprocessed case that needs more memory than this machine has available.

    Args:
        case: the case's name.
        models: the models of the ensemble.
        prepared: the case after each model's preprocessing, in the models' order.
        variance: whether the variance is tracked as well.
        by_fold: whether the mean of a fold is kept as well.
        network_volumes: see `network_volumes_of`.

    Raises:
        CaseTooLargeError: if the case does not fit.
    """
    box = common_box([crop_box(each.properties, model.plans) for model, each in zip(models, prepared, strict=True)])
    needed = prediction_bytes(
        models[0].labels.num_segmentation_heads,
        [side.stop - side.start for side in box],
        max((tuple(each.tiled.image.shape[1:]) for each in prepared), key=math.prod),
        with_variance=variance,
        by_fold=by_fold,
        network_volumes=network_volumes,
    )
    require_memory(needed, available_memory_bytes(), case=case)
