"""The passes of an ensemble: which member runs over a case with which transforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nnunet_ext.inference.transforms.sets import TransformSet
from nnunet_ext.inference.transforms.transform import Transform
from nnunet_ext.models.members import Member
from nnunet_ext.models.model import Model


@dataclass(frozen=True)
class Pass:
    """One run of a network over a case: a member, the transforms that it averages over, and its weight.

    With `class_weights` it has one weight per class or region instead.
    """

    name: str
    member: Member
    transforms: tuple[Transform, ...]
    weight: float
    class_weights: tuple[float, ...] | None = None

    def classifier_names(self, classifiers: int) -> list[str]:
        """The names of a mixture's classifiers, as `--save_members` writes them; none for a single network."""
        return [f"{self.name}+classifier{number}" for number in range(classifiers)] if classifiers > 1 else []

    def groups(self, *, apart: bool = False) -> list[tuple[Transform, ...]]:
        """The transforms in groups that run together: the exact ones share their batches, all others run alone.

        Args:
            apart: whether the exact ones are to run alone as well.
        """
        exact = tuple(transform for transform in self.transforms if transform.exact)
        alone: list[tuple[Transform, ...]] = [
            (transform,) for transform in self.transforms if apart or not transform.exact
        ]
        return alone if apart or not exact else [exact, *alone]

    @property
    def in_view_of(self) -> str | None:
        """The name of the transform that decides what the pass sees; None if it sees every voxel.

        Passes of a model with the same name here have the same field of view.
        """
        return None if len(self.transforms) > 1 or self.transforms[0].exact else self.transforms[0].name

    def field_of_view(self, shape: Sequence[int], device: torch.device) -> torch.Tensor | None:
        """How much the vote of the pass counts at each voxel, see `Transform.field_of_view`.

        Among several transforms is the identity, so that only a pass with one transform may not see all voxels.
        """
        return self.transforms[0].field_of_view(shape, device) if len(self.transforms) == 1 else None


def passes_of(
    models: Sequence[Model], weights: Sequence[float] | None, *, transforms: TransformSet, tta_members: bool
) -> list[list[Pass]]:
    """The passes of each model: one per member, or one per member and transform.

    Args:
        models: the models of the ensemble.
        weights: one weight per model, shared evenly by its passes; None gives every pass the same weight.
        transforms: returns the test-time transforms of a model, a row of `TRANSFORM_SETS`.
        tta_members: whether each transform counts as a member of its own.
    """
    return [
        passes_of_model(
            model,
            name,
            weights[position] if weights is not None else None,
            transforms=transforms,
            tta_members=tta_members,
        )
        for position, (model, name) in enumerate(zip(models, distinct_names(models), strict=True))
    ]


def segmented_names(passes: Sequence[Sequence[Pass]], models: Sequence[Model]) -> list[str]:
    """The names under which `--save_members` writes segmentations: each pass, then its classifiers if it has several.

    Args:
        passes: the passes of each model.
        models: the models.
    """
    return [
        name
        for of_model, model in zip(passes, models, strict=True)
        for step in of_model
        for name in (step.name, *step.classifier_names(len(model.volumes.classifiers)))
    ]


def passes_by_fold(passes: Sequence[Sequence[Pass]]) -> list[list[tuple[int, Pass]]]:
    """The passes of all models, each with the position of its model: one list per fold, in the order of the folds.

    Args:
        passes: the passes of each model.
    """
    folds: dict[str, list[tuple[int, Pass]]] = {}
    for position, of_model in enumerate(passes):
        for step in of_model:
            folds.setdefault(step.member.fold, []).append((position, step))
    return list(folds.values())


def passes_of_model(
    model: Model, model_name: str, weight: float | None, *, transforms: TransformSet, tta_members: bool
) -> list[Pass]:
    """The passes of one model; their names begin with `model_name`."""
    of_model = transforms(model)
    groups = [[transform] for transform in of_model] if tta_members else [list(of_model)]
    share = weight / (len(model.members) * len(groups)) if weight is not None else 1.0
    return [
        Pass(
            name=model_name + member.name + (f"+{group[0].name}" if tta_members else ""),
            member=member,
            transforms=tuple(group),
            weight=share,
        )
        for member in model.members
        for group in groups
    ]


def distinct_names(models: Sequence[Model]) -> list[str]:
    """One prefix per model for the names of its members, so that they are unique; empty with a single model."""
    names = [model.folder.name for model in models]
    if len(names) == 1:
        return [""]
    if len(set(names)) == len(names):
        return [f"{name}/" for name in names]
    return [f"{position}_{name}/" for position, name in enumerate(names)]
