"""Skeleton recall: tubed skeletons of drawn masks, and the loss by hand."""

import pickle

import numpy as np
import pytest
import torch
from drawn_targets import certain, drawn, mask, random_labels, random_logits, require_agreement, softmax, value_of
from scipy.ndimage import label

from nnunet_ext.losses.skeleton_recall import SkeletonOfTarget, SkeletonRecallTerm, tubed_skeleton
from nnunet_ext.losses.targets import OutputForm

FULL_3D = np.ones((3, 3, 3))


def recall(logits, labels, skeleton=None, form=None):
    form = form or OutputForm()
    if skeleton is None:
        function = SkeletonOfTarget(form, logits.shape[1])
        skeleton = torch.stack([function(patch) for patch in labels])
    return value_of(SkeletonRecallTerm(form), logits, labels, skeleton=skeleton)


def solid(shape, margin=2):
    return np.pad(np.ones(shape, bool), margin)


def rods(length):
    """Tubes of several widths along each axis, in three dimensions."""
    for width in [(1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (4, 4), (5, 5), (6, 6)]:
        for axis in range(3):
            shape = list(width)
            shape.insert(axis, length)
            yield shape, axis


# --- tubed skeletons ---


def test_a_thin_line_is_its_own_skeleton():
    line = mask(".......", ".11111.", ".....1.", "......1")
    assert np.array_equal(tubed_skeleton(line), line)


def test_the_tube_of_a_bar_lies_within_one_voxel_of_its_middle():
    """Five rows: the middle one and those beside it, and nothing of the outer two between the ends."""
    tube = tubed_skeleton(solid((5, 15)))[2:-2, 2:-2]
    assert tube[1:4, 4:-4].all()
    assert not tube[[0, 4], 4:-4].any()


def test_the_tube_of_a_rod_lies_within_one_voxel_of_its_axis():
    tube = tubed_skeleton(solid((7, 7, 25)))[2:-2, 2:-2, 2:-2]
    middle = tube[:, :, 6:-6]
    assert middle[2:5, 2:5].all()
    assert middle.sum() == 9 * middle.shape[2]


def test_the_tube_stays_within_the_mask():
    rng = np.random.default_rng(0)
    for shape in [(12, 13), (7, 8, 9)]:
        noise = rng.random(shape) < 0.4
        tube = tubed_skeleton(noise)
        assert tube.dtype == bool
        assert not (tube & ~noise).any()


def test_a_rod_of_any_width_keeps_the_length_of_its_axis():
    """But for its rounded ends; skeletonisation alone loses all rods of even width."""
    length = 20
    for shape, axis in rods(length):
        covered = tubed_skeleton(solid(shape)).any(axis=tuple(other for other in range(3) if other != axis))
        assert covered.sum() >= length - max(shape[:axis] + shape[axis + 1 :]), shape


def test_every_object_has_a_skeleton():
    """However small or round it is, and next to others that have one."""
    rng = np.random.default_rng(1)
    for share in (0.05, 0.1, 0.2, 0.3):
        noise = rng.random((12, 12, 12)) < share
        objects, count = label(noise, FULL_3D)
        assert set(np.unique(objects[tubed_skeleton(noise)])) == set(range(1, count + 1))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("axes", [2, 3])
def test_a_cube_has_a_skeleton_near_its_middle(side, axes):
    cube = solid((side,) * axes)
    tube = tubed_skeleton(cube)
    middle = cube.shape[0] // 2
    assert tube[(middle,) * axes]


def test_two_objects_keep_their_skeletons_apart():
    """An even rod, which skeletonisation alone loses, beside an odd one."""
    both = np.zeros((7, 12, 16), bool)
    both[2:4, 2:4, 2:14] = True
    both[2:5, 7:10, 2:14] = True
    alone = both.copy()
    alone[:, :5] = False
    tube = tubed_skeleton(both)
    assert np.array_equal(tube[:, 5:], tubed_skeleton(alone)[:, 5:])
    assert tube[2:4, 2:4, 2:14].all()


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (1, 4, 5)])
def test_an_empty_mask_has_no_skeleton(shape):
    found = tubed_skeleton(np.zeros(shape, bool))
    assert found.shape == shape
    assert not found.any()


@pytest.mark.parametrize("shape", [(6, 7), (6, 6, 6), (1, 6, 7)])
def test_a_mask_that_fills_the_patch_has_a_skeleton(shape):
    assert tubed_skeleton(np.ones(shape, bool)).any()


def test_a_single_slice_has_the_skeleton_of_a_picture():
    """A bar five rows thick in (1, H, W): the middle rows over the middle columns."""
    bar = solid((5, 15))
    slices = tubed_skeleton(bar[None])
    assert slices.shape == (1, *bar.shape)
    inner = slices[0, 2:-2, 2:-2]
    assert inner[1:4, 4:-4].all()
    assert not inner[[0, 4], 4:-4].any()


# --- what the loader computes ---


def test_every_foreground_class_has_its_skeleton():
    labels = drawn(".......", ".11122.", ".......")[0]
    found = SkeletonOfTarget(OutputForm(), 4)(labels)
    assert found.dtype == torch.uint8
    assert torch.equal(found, torch.cat([labels == 1, labels == 2, labels == 3]).to(torch.uint8))


def test_ignored_voxels_have_no_skeleton():
    labels = drawn("......", ".11999", "......")[0]
    assert torch.equal(SkeletonOfTarget(OutputForm(ignore_label=9), 2)(labels), (labels == 1).to(torch.uint8))


def test_every_region_has_its_skeleton_and_the_mark_of_ignored_voxels_none():
    line, nothing = drawn(".....", "11111", ".....")[0], drawn(*["....."] * 3)[0]
    found = SkeletonOfTarget(OutputForm(regions=True, ignore_label=3), 2)(torch.cat([line, nothing, nothing]))
    assert torch.equal(found, torch.cat([line, nothing]).to(torch.uint8))


def test_the_loaders_function_pickles():
    function = SkeletonOfTarget(OutputForm(ignore_label=9), 3)
    assert pickle.loads(pickle.dumps(function)) == function


# --- the loss ---

LINE = drawn("......", "11111.", "......")


@pytest.mark.parametrize(
    ("found", "value"), [("11111.", -1), ("111111", -1), ("111...", -3 / 5), (".....1", 0), ("......", 0)]
)
def test_the_share_of_a_line_that_is_found(found, value):
    """False positives cost nothing."""
    loss = recall(certain(drawn("......", found, "......"), 2), LINE)
    assert loss.item() == pytest.approx(value, abs=1e-6)


def test_even_odds_find_half():
    assert recall(torch.zeros(1, 2, 3, 6), LINE).item() == pytest.approx(-0.5)


def test_only_the_skeleton_counts():
    """A thick bar of which all but the outer rows is found."""
    bar = torch.from_numpy(solid((5, 15)))[None, None].long()
    skeleton = torch.from_numpy(tubed_skeleton(bar[0, 0].numpy()))[None, None].long()
    assert recall(certain(skeleton, 2), bar).item() == pytest.approx(-1)


def test_the_mean_is_over_classes_that_a_patch_has():
    """Class 1 is found to 3/5, class 2 in full, class 3 is absent."""
    truth = drawn("......", "11111.", "......", "222...", "......")
    found = drawn("......", "111...", "......", "222...", "......")
    assert recall(certain(found, 4), truth).item() == pytest.approx(-(3 / 5 + 1) / 2)


def test_the_skeleton_may_be_of_any_type():
    skeleton = (LINE == 1).float()
    values = {
        recall(torch.zeros(1, 2, 3, 6), LINE, skeleton.to(kind)).item()
        for kind in (torch.uint8, torch.bool, torch.half)
    }
    assert values == {-0.5}


def test_value_and_gradient_are_those_of_the_definition():
    """-sum(s p) / sum(s), the mean over classes and patches."""
    labels = random_labels((6, 7))
    s = torch.stack([SkeletonOfTarget(OutputForm(), 3)(patch) for patch in labels]).double().numpy()

    def definition(exact):
        p = softmax(exact)[:, 1:]
        return -np.mean((s * p).sum(axis=(2, 3)) / s.sum(axis=(2, 3)))

    require_agreement(lambda given: recall(given, labels), definition, random_logits(labels))
