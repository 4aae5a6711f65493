"""How much memory the volumes of all classes take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunet_ext.inference.passes import Pass

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
    ensemble's mean and, if tracked, its variance at the image's resolution. A member's
    probabilities at the image's resolution exist a few slices or rows at a time.

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
