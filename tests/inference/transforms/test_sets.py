"""Which transforms a model gets: its training, patch and spacing decide."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nnunet_ext.inference.transforms.plane import square_plane
from nnunet_ext.inference.transforms.sets import TRANSFORM_SETS
from nnunet_ext.options import TTA_SETS

SMALL = ["rotate10", "rotate-10", "scale0.95", "scale1.05"]


def model(patch: list[int], spacing: list[float], mirror_axes: tuple[int, ...] | None = (0, 1)) -> Any:
    """What the sets ask a model for."""
    configuration = SimpleNamespace(patch_size=patch, spacing=spacing)
    return SimpleNamespace(folder=Path("heart"), configuration=configuration, mirror_axes=mirror_axes)


SQUARE = model([128, 128], [1.0, 1.0])


def names(chosen: str, of: Any) -> list[str]:
    return [transform.name for transform in TRANSFORM_SETS[chosen](of)]


def test_every_set_that_can_be_chosen_is_there():
    assert set(TTA_SETS) == set(TRANSFORM_SETS)


def test_two_flips_are_the_rotation_by_180_degrees_and_it_is_taken_once():
    assert names("rot90", SQUARE) == ["flip-none", "flip-0", "flip-1", "flip-01", "rot90", "rot270"]
    assert names("full", SQUARE) == [*names("rot90", SQUARE), *SMALL]


@pytest.mark.parametrize("axes", [None, ()])
def test_a_model_trained_without_mirroring_gets_no_flips(axes):
    plain = model([128, 128], [1.0, 1.0], axes)
    assert names("flips", plain) == names("none", plain) == ["flip-none"]
    assert names("rot90", plain) == ["flip-none", "rot90", "rot180", "rot270"]


def test_a_checkpoint_may_allow_some_axes_only():
    assert names("rot90", model([64, 64], [1, 1], (1,))) == ["flip-none", "flip-1", "rot90", "rot180", "rot270"]


@pytest.mark.parametrize(
    ("patch", "spacing", "plane"),
    [
        ([128, 128], [1.0, 1.0], (-2, -1)),
        ([128, 128], [1.0, 1.005], (-2, -1)),  # half a per cent
        ([128, 128], [1.0, 1.25], None),
        ([128, 112], [1.0, 1.0], None),
        ([10, 256, 256], [5.0, 1.0, 1.0], (-2, -1)),
        ([10, 256, 224], [5.0, 1.0, 1.0], None),
        ([64, 64, 64], [1.0, 1.0, 1.0], (-2, -1)),
        ([40, 56, 40], [1.0, 1.0, 1.0], (-3, -1)),
        ([40, 40, 56], [1.0, 1.0, 1.0], (-3, -2)),
        ([40, 40, 56], [3.0, 1.0, 1.0], None),
        ([64, 64], [5.0, 1.0, 1.0], (-2, -1)),  # a 2D configuration with the spacing between slices in front
    ],
)
def test_the_plane_is_that_of_two_axes_with_equal_patch_and_spacing(patch, spacing, plane):
    assert square_plane(model(patch, spacing)) == plane


def test_the_plane_is_logged(caplog):
    with caplog.at_level(logging.INFO):
        names("rot90", model([40, 56, 40], [1.0, 1.0, 1.0]))
    assert "heart: rotations in the plane of axes 0 and 2 of the patch" in caplog.text


def test_a_patch_that_is_not_square_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match="need two axes with the same patch size") as refusal:
        names("rot90", model([10, 256, 224], [5.0, 0.75, 0.75]))
    message = str(refusal.value)
    assert "heart has patches of 10 x 256 x 224 voxels and a spacing of 5 x 0.75 x 0.75 mm" in message
    assert "Use --tta flips, or --tta full, which leaves these rotations out." in message


def test_everything_without_the_rotations_that_are_not_allowed(caplog):
    oblong = model([128, 112], [2.0, 1.0])
    found = TRANSFORM_SETS["full"](oblong)
    assert [transform.name for transform in found] == ["flip-none", "flip-0", "flip-1", "flip-01", *SMALL]
    assert found[4].spacing_mm == (2.0, 1.0)
    assert "--tta full leaves out the rotations by 90 degrees" in caplog.text
    assert "128 x 112 voxels" in caplog.text
