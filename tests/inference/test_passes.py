"""The passes of an ensemble, their names and their weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nnunet_ext.inference.passes import passes_by_fold, passes_of
from nnunet_ext.inference.transforms.flip import IDENTITY, Flip
from nnunet_ext.inference.transforms.sets import TRANSFORM_SETS

FLIPS = TRANSFORM_SETS["flips"]


def model(folder: str, *members: str, mirror_axes: tuple[int, ...] | None = (0,)) -> Any:
    """Everything that the passes of a model depend on."""
    return SimpleNamespace(
        folder=Path(folder),
        mirror_axes=mirror_axes,
        members=[SimpleNamespace(name=name, fold=name.split("/")[0]) for name in members],
    )


def test_a_member_is_one_run_over_all_its_flips():
    ((first, second),) = passes_of([model("m", "fold_0", "fold_1")], None, transforms=FLIPS, tta_members=False)
    assert (first.name, second.name) == ("fold_0", "fold_1")
    assert first.transforms == second.transforms == (IDENTITY, Flip((0,)))
    assert first.weight == second.weight == 1


def test_flips_that_are_members_share_the_weight_of_their_model():
    """Weight 3 over two members with two flips each: 0.75 per pass."""
    ((*runs,),) = passes_of([model("m", "fold_0", "fold_1")], [3], transforms=FLIPS, tta_members=True)
    assert [run.transforms for run in runs] == [(IDENTITY,), (Flip((0,)),)] * 2
    assert [run.weight for run in runs] == [0.75] * 4
    assert len({run.name for run in runs}) == 4
    assert all(run.name.startswith(("fold_0+", "fold_1+")) for run in runs)


@pytest.mark.parametrize(("transforms", "axes"), [("none", (0, 1)), ("flips", None)])
def test_without_mirroring_the_only_transform_is_the_identity(transforms, axes):
    ((run,),) = passes_of(
        [model("m", "fold_0", mirror_axes=axes)], None, transforms=TRANSFORM_SETS[transforms], tta_members=False
    )
    assert run.transforms == (IDENTITY,)


def test_weights_are_of_folders_not_of_members():
    """A folder of two members and weight 1, one of a single member and weight 3: a half, a half, and 3."""
    models = [model("a", "fold_0", "fold_1"), model("b", "fold_0")]
    first, second = passes_of(models, [1, 3], transforms=FLIPS, tta_members=False)
    assert [run.weight for run in first] == [0.5, 0.5]
    assert [run.weight for run in second] == [3]


def test_members_of_several_folders_are_told_apart_by_the_folder():
    first, second = passes_of(
        [model("x/a", "fold_0"), model("x/b", "fold_0")], None, transforms=FLIPS, tta_members=False
    )
    assert (first[0].name, second[0].name) == ("a/fold_0", "b/fold_0")


def test_folders_of_the_same_name_are_told_apart_by_their_position():
    first, second = passes_of(
        [model("x/a", "fold_0"), model("y/a", "fold_0")], None, transforms=FLIPS, tta_members=False
    )
    assert (first[0].name, second[0].name) == ("0_a/fold_0", "1_a/fold_0")


def test_passes_are_ordered_by_fold_through_all_models():
    """A calibration describes each fold as it was fitted: the members of one fold, of every model."""
    models = [model("a", "fold_0/one", "fold_0/two", "fold_1/one"), model("b", "fold_0/one", "fold_1/one")]
    folds = passes_by_fold(passes_of(models, None, transforms=FLIPS, tta_members=False))
    assert [[(position, step.name) for position, step in fold] for fold in folds] == [
        [(0, "a/fold_0/one"), (0, "a/fold_0/two"), (1, "b/fold_0/one")],
        [(0, "a/fold_1/one"), (1, "b/fold_1/one")],
    ]
