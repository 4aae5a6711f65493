"""Extra targets that the loader computes for loss terms, such as distance maps and skeletons.

nnU-Net's loader collates a list of targets, one per resolution of deep supervision. The last transform appends the
extra targets to that list, and they are removed again before the loss gets the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchgeneratorsv2.transforms.base.basic_transform import SegOnlyTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from torch import Tensor

from nnunet_ext.losses.added_terms import ExtraOfTarget, finest


class AppendExtras(SegOnlyTransform):
    """Returns the targets of a patch as a list, followed by each function of the target at full resolution."""

    def __init__(self, functions: Mapping[str, ExtraOfTarget]) -> None:
        super().__init__()
        self.functions = tuple(functions.values())

    def _apply_to_segmentation(self, segmentation: Any, **params: Any) -> list[Tensor]:
        levels = segmentation if isinstance(segmentation, list) else [segmentation]
        return [*levels, *(function(finest(levels)) for function in self.functions)]


def with_extras(transforms: ComposeTransforms, functions: Mapping[str, ExtraOfTarget]) -> ComposeTransforms:
    """Appends `AppendExtras` to the transforms; returns them unchanged if there is nothing to compute."""
    return ComposeTransforms([*transforms.transforms, AppendExtras(functions)]) if functions else transforms


def split_extras(
    batch: dict[str, Any], names: Sequence[str], *, supervised: bool
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Splits a batch into one as nnU-Net's own loader returns it, and the extra targets by name.

    Args:
        batch: from a loader with `AppendExtras`, or from nnU-Net's own if there are no names.
        names: names of the extra targets, in the order of the functions.
        supervised: whether nnU-Net's batches have a list of targets, for deep supervision.
    """
    if not names:
        return batch, {}
    levels, extras = batch["target"][: -len(names)], batch["target"][-len(names) :]
    return {**batch, "target": levels if supervised else levels[0]}, dict(zip(names, extras, strict=True))
