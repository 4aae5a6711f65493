"""What the loader computes from a target for a loss term: distance maps, skeletons.

nnU-Net's loader collates a list of targets, one for each resolution of deep supervision. What terms need is appended
to that list by the last transform, and taken off again before the loss sees the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchgeneratorsv2.transforms.base.basic_transform import SegOnlyTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from torch import Tensor

from nnunet_ext.losses.added_terms import ExtraOfTarget, finest


class AppendExtras(SegOnlyTransform):
    """Makes a list of the target or targets of a patch and of each function of the finest of them."""

    def __init__(self, functions: Mapping[str, ExtraOfTarget]) -> None:
        super().__init__()
        self.functions = tuple(functions.values())

    def _apply_to_segmentation(self, segmentation: Any, **params: Any) -> list[Tensor]:
        levels = segmentation if isinstance(segmentation, list) else [segmentation]
        return [*levels, *(function(finest(levels)) for function in self.functions)]


def with_extras(transforms: ComposeTransforms, functions: Mapping[str, ExtraOfTarget]) -> ComposeTransforms:
    """The same transforms and then `AppendExtras`; as they are if there is nothing to compute."""
    return ComposeTransforms([*transforms.transforms, AppendExtras(functions)]) if functions else transforms


def split_extras(
    batch: dict[str, Any], names: Sequence[str], *, supervised: bool
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A batch as nnU-Net's own loader gives it, and what was appended by name.

    Args:
        batch: from a loader with `AppendExtras`, or with nothing appended if there are no names.
        names: in the order of the functions.
        supervised: targets are a list in nnU-Net's batches.
    """
    if not names:
        return batch, {}
    levels, extras = batch["target"][: -len(names)], batch["target"][-len(names) :]
    return {**batch, "target": levels if supervised else levels[0]}, dict(zip(names, extras, strict=True))
