"""Extra targets that the loader adds for loss terms, such as distance maps, skeletons and a teacher's probabilities.

nnU-Net's loader collates a list of targets, one per resolution of deep supervision. The last transform appends the
extra targets to that list, and they are removed again before the loss gets the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchgeneratorsv2.transforms.base.basic_transform import SegOnlyTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from torch import Tensor

from nnunet_ext.losses.added_terms import Extra, ExtraOfCase, finest


class AppendExtras(SegOnlyTransform):
    """Returns the targets of a patch as a list, followed by the extra targets.

    Args:
        extras: functions of the target at full resolution, or what was loaded with the case, by name.
    """

    def __init__(self, extras: Mapping[str, Extra]) -> None:
        super().__init__()
        self.extras = tuple(extras.values())

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        """What was loaded with the case, by key."""
        return {
            "of_case": {
                extra.key: loaded(data_dict, extra) for extra in self.extras if isinstance(extra, ExtraOfCase)
            }
        }

    def _apply_to_segmentation(
        self, segmentation: Any, *, of_case: Mapping[str, Tensor] | None = None
    ) -> list[Tensor]:
        levels = segmentation if isinstance(segmentation, list) else [segmentation]
        found = of_case or {}
        return [
            *levels,
            *(found[extra.key] if isinstance(extra, ExtraOfCase) else extra(finest(levels)) for extra in self.extras),
        ]


def loaded(data_dict: Mapping[str, Any], extra: ExtraOfCase) -> Tensor:
    """An extra target that came with the case.

    Raises:
        RuntimeError: if a transform dropped it, which batchgenerators' transforms do that do not know its key.
    """
    found = data_dict.get(extra.key)
    if found is None:
        raise RuntimeError(
            f"All transforms must hand on what was loaded with a case under {extra.key!r}; one of this trainer's "
            f"dropped it. Leave out the part of the trainer's name that changes the augmentation."
        )
    return found


def with_extras(transforms: ComposeTransforms, extras: Mapping[str, Extra]) -> ComposeTransforms:
    """Appends `AppendExtras` to the transforms; returns them unchanged if there is nothing to add."""
    return ComposeTransforms([*transforms.transforms, AppendExtras(extras)]) if extras else transforms


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
