"""Where members are left out, the label is that of all members: by hand and by brute force."""

import csv
import math
from itertools import product

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

from nnunet_ext.files.checkpoints import load_checkpoint, save_checkpoint
from nnunet_ext.inference import EnsemblePredictor
from nnunet_ext.inference.accumulation.early_exit import (
    InformationSettled,
    LabelSettled,
    gap_of_two_largest,
    rule_for,
    tiles_with,
)
from nnunet_ext.inference.accumulation.moments import Moments
from nnunet_ext.inference.sliding_window import tile_image


def moments_of(members, weights=None, *, regions=False):
    moments = Moments(regions=regions, with_variance=False)
    for member, weight in zip(members, weights or [1.0] * len(members), strict=True):
        moments.add(torch.as_tensor(member), weight)
    return moments


# --- the label, by hand ---


def test_the_gap_is_the_largest_value_minus_the_second_largest():
    """0.7 − 0.2; 0.4 − 0.4; the largest in front, in the middle and behind: 0.6 − 0.3 each."""
    values = torch.tensor([[0.7, 0.4, 0.6, 0.1, 0.3], [0.2, 0.2, 0.3, 0.6, 0.1], [0.1, 0.4, 0.1, 0.3, 0.6]])
    np.testing.assert_allclose(gap_of_two_largest(values), [0.5, 0, 0.3, 0.3, 0.3], atol=1e-7)


def test_two_of_three_members_settle_a_label_when_they_lead_by_more_than_one():
    """After two of three, sums of (1.6, 0.4) lead by 1.2 > 1: the last one can add 1 to the second class at most.
    (1.4, 0.6) lead by 0.8 only. (1.0, 1.0) by nothing."""
    moments = moments_of([[[0.9, 0.8, 0.5], [0.1, 0.2, 0.5]], [[0.7, 0.6, 0.5], [0.3, 0.4, 0.5]]])
    assert LabelSettled().settled(moments, 1.0).tolist() == [True, False, False]


def test_the_lead_is_over_the_second_class_not_over_the_rest():
    """(1.3, 0.35, 0.35): the lead over each of the others is 0.95, and one of them may get 1. With (1.4, 0.3, 0.3)
    it is 1.1, although the two others have 0.6 together."""
    moments = moments_of([[[0.65, 0.7], [0.175, 0.15], [0.175, 0.15]]] * 2)
    assert LabelSettled().settled(moments, 1.0).tolist() == [False, True]


def test_weights_count_in_what_is_done_and_in_what_is_left():
    """One member of weight 3 with (0.8, 0.2) leads by 1.8: enough for a weight of 1.7, not for 1.9."""
    moments = moments_of([[[0.8], [0.2]]], [3.0])
    assert LabelSettled().settled(moments, 1.7).tolist() == [True]
    assert LabelSettled().settled(moments, 1.9).tolist() == [False]


def test_regions_are_settled_when_none_can_cross_one_half():
    """After two of three members half of the weight is 1.5. A sum of 1.6 is above it whatever comes; 0.4 stays
    below it with the last one (1.4); 0.6 could reach 1.6 and 1.4 could stay there. Both regions have to be
    settled."""
    first = torch.tensor([[0.8, 0.2, 0.3, 0.7, 0.8, 0.8], [0.8, 0.2, 0.3, 0.7, 0.2, 0.3]])
    moments = moments_of([first, first], regions=True)
    assert LabelSettled().settled(moments, 1.0).tolist() == [True, True, False, False, True, False]


@pytest.mark.parametrize("regions", [False, True])
def test_nothing_is_settled_before_half_of_the_weight_is_done(regions):
    """However confident the members are: as many could predict the opposite."""
    sure = [[[1.0], [0.0]]]
    assert LabelSettled().settled(moments_of(sure * 3, regions=regions), 4.0) is None
    assert LabelSettled().settled(moments_of(sure * 3, regions=regions), 3.0) is None
    assert LabelSettled().settled(moments_of(sure * 4, regions=regions), 3.0).tolist() == [True]


# --- the label, by brute force ---

MEMBERS = 7


def sharp_members(seed, classes=3, voxels=400, *, regions=False):
    """Members that partly agree, (M, C, voxels): the voxels go from all alike to all different."""
    generator = torch.Generator().manual_seed(seed)
    common = 3 * torch.randn((1, classes, voxels), generator=generator)
    own = torch.randn((MEMBERS, classes, voxels), generator=generator) * torch.linspace(0, 6, voxels)
    return torch.sigmoid(common + own) if regions else torch.softmax(common + own, 1)


def labels_of(members, weights, *, regions=False):
    """The label of all members in double precision; for regions one bit a region."""
    mean = np.average(members.double().numpy(), axis=0, weights=weights)
    return (mean > 0.5) * 1 if regions else mean.argmax(0)


WEIGHTS = [None, [0.5, 2.0, 1.0, 1.0, 3.0, 0.2, 0.7], [5.0, 1.0, 0.3, 0.3, 0.3, 0.3, 0.3]]
each_run = pytest.mark.parametrize(("seed", "weights", "regions"), list(product(range(3), WEIGHTS, [False, True])))


def settled_after(members, weights, *, regions):
    """Of each number of members done: (done, weights, where it is settled), as far as the rule says anything."""
    weights = weights or [1.0] * MEMBERS
    for done in range(1, MEMBERS + 1):
        moments = moments_of(list(members[:done]), weights[:done], regions=regions)
        settled = LabelSettled().settled(moments, sum(weights[done:]))
        if settled is not None:
            yield done, weights, settled.numpy()


@each_run
def test_a_settled_label_is_the_label_of_all_members(seed, weights, regions):
    members = sharp_members(seed, regions=regions)
    checked = []
    for done, full, settled in settled_after(members, weights, regions=regions):
        final = labels_of(members, full, regions=regions)
        now = labels_of(members[:done], full[:done], regions=regions)
        np.testing.assert_array_equal(now[..., settled], final[..., settled])
        checked.append(settled.mean())
    assert checked == sorted(checked)  # what is settled stays settled
    assert 0.1 < np.mean(checked[:-1]) < 1  # the rule says something, and not everything


@each_run
def test_even_the_worst_members_to_come_cannot_change_a_settled_label(seed, weights, regions):
    """All members to come are certain of the class that is second so far; for regions, of the other side of each."""
    members = sharp_members(seed, regions=regions)
    for done, full, settled in settled_after(members, weights, regions=regions):
        mean = np.average(members[:done].double().numpy(), axis=0, weights=full[:done])  # (C, voxels)
        worst = (mean < 0.5) * 1.0 if regions else np.eye(3)[np.argsort(mean, 0)[-2]].T
        adversaries = torch.tensor(worst, dtype=torch.float32).expand(MEMBERS - done, -1, -1)
        final = labels_of(torch.cat([members[:done], adversaries]), full, regions=regions)
        now = labels_of(members[:done], full[:done], regions=regions)
        np.testing.assert_array_equal(now[..., settled], final[..., settled])
        if weights is None and not regions and done < MEMBERS:  # and where nothing is settled, they can
            lead = gap_of_two_largest(torch.tensor(mean)).numpy() * done
            clear = ~settled & (lead < MEMBERS - done - 1e-3)
            assert clear.any()
            assert (now[clear] != final[clear]).all()


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("weight", [1.0, 0.1, 1 / 3])
def test_certain_members_that_end_in_a_draw_are_never_settled_by_rounding(weight, regions):
    """Of members that say 0 or 1 all sequences are tried. A draw at the end is decided by the order of the classes,
    or by the last bit of the mean, so it must not count as settled before, whatever single precision makes of a
    lead that is just as large as what is left."""
    for count in (4, 6, 8):
        votes = torch.tensor(list(product([0.0, 1.0], repeat=count)))  # (2^M, M)
        draw = votes.sum(1) == count / 2
        members = [torch.stack([votes[:, number], 1 - votes[:, number]]) for number in range(count)]
        for done in range(1, count):
            settled = LabelSettled().settled(
                moments_of(members[:done], [weight] * done, regions=regions), weight * (count - done)
            )
            assert settled is None or not (settled & draw).any()


# --- the mutual information ---


def test_information_is_settled_where_the_last_member_did_not_move_it():
    """Two members that agree, then a third: in the first voxel it agrees, too, and the information stays 0. In the
    second it contradicts them: the mean is (2/3, 1/3), of entropy 0.637, by ln 2 a change of 0.918."""
    agreeing = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    rule, moments = InformationSettled(tolerance=0.01, least_members=3), Moments()
    for _ in range(2):
        moments.add(agreeing)
        assert rule.settled(moments, 5.0) is None
    moments.add(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert rule.settled(moments, 4.0).tolist() == [True, False]


def test_the_tolerance_is_a_share_of_the_largest_entropy():
    """That voxel's change is (ln 3 − 2/3 ln 2)/ln 2 = 0.918 of the largest."""
    change = (math.log(3) - 2 / 3 * math.log(2)) / math.log(2)
    for tolerance, expected in ((change - 0.01, False), (change + 0.01, True)):
        rule, moments = InformationSettled(tolerance=tolerance, least_members=3), Moments()
        for first in (1.0, 1.0, 0.0):
            moments.add(torch.tensor([[first], [1 - first]]))
            settled = rule.settled(moments, 1.0)
        assert settled.tolist() == [expected]


@pytest.mark.parametrize("least_members", [2, 4, 6])
def test_the_information_needs_some_members_before_it_counts(least_members):
    rule, moments = InformationSettled(least_members=least_members), Moments()
    found = []
    for _ in range(6):
        moments.add(torch.tensor([[0.5], [0.5]]))
        found.append(rule.settled(moments, 1.0) is not None)
    assert found == [number >= least_members for number in range(1, 7)]


def test_rules_are_found_by_name_and_each_case_has_its_own():
    assert isinstance(rule_for("label"), LabelSettled)
    assert isinstance(rule_for("information"), InformationSettled)
    assert rule_for("information") is not rule_for("information")
    with pytest.raises(ValueError, match="early_exit must be one of label, information; found 'entropy'"):
        rule_for("entropy")


# --- tiles ---


def starts(tiles):
    """Where tiles begin, along each axis."""
    return [tuple(part if isinstance(part, int) else part.start for part in tile) for tile in tiles]


def open_at(shape, *voxels):
    opened = torch.zeros(shape, dtype=torch.bool)
    for voxel in voxels:
        opened[voxel] = True
    return opened


# columns  0 1 2 3 4 5 6 7 8 9, patch 4, step 2: tiles begin at 0, 2, 4 and 6
#          [-----]   [-----]
#              [-----]   [-----]
ROW = tile_image(torch.zeros(1, 2, 4, 10), (4, 4))


@pytest.mark.parametrize(
    ("column", "begin"), [(0, [0]), (1, [0]), (2, [0, 2]), (3, [0, 2]), (4, [2, 4]), (5, [2, 4]), (8, [6]), (9, [6])]
)
def test_in_2d_a_voxel_needs_the_tiles_of_its_slice_that_cover_it(column, begin):
    assert starts(tiles_with(open_at((2, 4, 10), (1, 3, column)), ROW)) == [(1, 0, start) for start in begin]


def test_tiles_come_once_each_and_in_the_order_of_all_tiles():
    opened = open_at((2, 4, 10), (1, 0, 9), (0, 0, 3), (0, 1, 3), (0, 0, 0))
    assert starts(tiles_with(opened, ROW)) == [(0, 0, 0), (0, 0, 2), (1, 0, 6)]


def test_without_an_open_voxel_no_tile_is_needed_and_with_all_open_all_are():
    assert tiles_with(torch.zeros((2, 4, 10), dtype=torch.bool), ROW) == []
    assert tiles_with(torch.ones((2, 4, 10), dtype=torch.bool), ROW) == ROW.tiles


def test_in_3d_a_voxel_needs_the_tiles_that_cover_it_along_every_axis():
    """6 slices, patch 4: tiles begin at 0 and 2. Of 10 columns at 0, 2, 4 and 6. Slice 3 is in both, column 8 in the
    last one only."""
    tiled = tile_image(torch.zeros(1, 6, 4, 10), (4, 4, 4))
    assert starts(tiles_with(open_at((6, 4, 10), (3, 0, 8)), tiled)) == [(0, 0, 6), (2, 0, 6)]
    assert starts(tiles_with(open_at((6, 4, 10), (5, 0, 3)), tiled)) == [(2, 0, 0), (2, 0, 2)]


def test_padding_in_front_of_the_image_is_taken_into_account():
    """An image of 6 rows in a patch of 8 has a row of padding on both sides; its columns are as above."""
    tiled = tile_image(torch.zeros(1, 1, 6, 20), (8, 8))
    assert tiled.image.shape == (1, 1, 8, 20)
    # tiles of 8 columns begin at 0, 4, 8 and 12
    assert starts(tiles_with(open_at((1, 6, 20), (0, 5, 0)), tiled)) == [(0, 0, 0)]
    assert starts(tiles_with(open_at((1, 6, 20), (0, 0, 19)), tiled)) == [(0, 0, 12)]
    narrow = tile_image(torch.zeros(1, 1, 6, 3), (8, 8))
    assert starts(tiles_with(open_at((1, 6, 3), (0, 2, 1)), narrow)) == [(0, 0, 0)]


def test_a_voxel_between_network_voxels_needs_the_tiles_of_its_neighbours_too():
    """An image of 20 columns on a network of 10: columns 6 and 7 lie in network column 3, and interpolation reaches
    to 2 and 4. Those are in tiles 0, 2 and 4; column 3 alone would need the first two."""
    for column in (6, 7):
        opened = open_at((2, 4, 20), (0, 0, column))
        assert starts(tiles_with(opened, ROW)) == [(0, 0, 0), (0, 0, 2), (0, 0, 4), (1, 0, 0), (1, 0, 2), (1, 0, 4)]


@pytest.mark.parametrize("columns", [4, 7, 10, 13, 20, 27])
def test_every_network_voxel_that_interpolation_reads_gets_all_of_its_tiles(columns):
    """Column j of n lies at (j + 1/2)·10/n − 1/2 of the network's 10, between the two next to it."""
    counts = []
    for column in range(columns):
        place = (column + 0.5) * 10 / columns - 0.5
        read = {int(np.clip(neighbour, 0, 9)) for neighbour in (math.floor(place), math.ceil(place))}
        expected = {start for start in (0, 2, 4, 6) for voxel in read if start <= voxel < start + 4}
        found = {begin[2] for begin in starts(tiles_with(open_at((2, 4, columns), (0, 0, column)), ROW))}
        assert expected <= found
        counts.append(len(found))
    assert min(counts) <= 2  # not simply all of them


# --- from images to files ---

IMAGE = (2, 40, 90)  # large enough that some tiles are settled as a whole
SCALE = 400  # of logits: most voxels are certain, and some stay open in most tiles


@pytest.fixture
def seven_members(make_model_folder, write_checkpoint):
    """A model folder whose first five members are alike and two are not, so that much is settled after four."""

    def make(name="nnUNetTrainer__nnUNetPlans__2d", configuration="2d", **settings):
        folder = make_model_folder(name, configuration=configuration, folds=(), **settings)
        seed, others = (32, (29, 16)) if configuration == "2d" else (19, (22, 36))
        for number, member_seed in enumerate([seed] * 5 + list(others)):
            write_checkpoint(
                folder,
                0,
                f"checkpoint_{number}.pth",
                configuration=configuration,
                seed=member_seed,
                logit_scale=SCALE,
            )
        return folder

    return make


@pytest.fixture
def patches(monkeypatch):
    """How many patches went through networks, as a list of the sizes of the batches."""
    batches = []
    call = nn.Module.__call__

    def counted(self, *arguments, **settings):
        if type(self).__name__ in ("PlainConvUNet", "BottleneckDropout"):  # the latter in mixtures
            batches.append(len(arguments[0]))
        return call(self, *arguments, **settings)

    monkeypatch.setattr(nn.Module, "__call__", counted)
    return batches


def predicted(folder, images, output, *, save_probabilities=False, **settings):
    predictor = EnsemblePredictor.from_model_folders(
        folder, members="checkpoint_*.pth", device="cpu", allow_tqdm=False, tta="none", **settings
    )
    report = predictor.predict_from_files(images, output, save_probabilities, maps=["confidence"])
    assert report.failed == {}
    return sitk.GetArrayFromImage(sitk.ReadImage(str(output / "case.nii.gz")))


def row_of(output):
    with (output / "cases.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return row


GEOMETRIES = {
    "2d at the image's resolution": {},
    "2d, resampled and transposed": {"spacing_mm": [1.2, 0.9], "transpose_forward": (0, 2, 1)},
    "3d": {"configuration": "3d_fullres", "spacing_mm": [4.0, 1.0, 1.0]},
    "3d, resampled and transposed": {
        "configuration": "3d_fullres",
        "spacing_mm": [1.25, 3.0, 0.8],
        "transpose_forward": (2, 0, 1),
    },
}


@pytest.mark.parametrize("settings", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_the_segmentation_is_that_of_all_members_with_fewer_patches(
    seven_members, make_image, tmp_path, patches, settings
):
    folder = seven_members(**settings)
    images = make_image(tmp_path / "images", shape_zyx=IMAGE)
    expected = predicted(folder, images, tmp_path / "all")
    all_patches = sum(patches)
    patches.clear()
    found = predicted(folder, images, tmp_path / "some", early_exit="label")
    assert len(np.unique(expected)) == 3
    np.testing.assert_array_equal(found, expected)
    assert 4 / 7 * all_patches < sum(patches) < all_patches  # four of seven members always run
    assert row_of(tmp_path / "some")["members"] == row_of(tmp_path / "all")["members"] == "7"


def test_members_that_are_all_alike_are_left_out_after_the_majority(make_model_folder, write_checkpoint, make_image,
                                                                    tmp_path, patches):  # fmt: skip
    """Logits are scaled until all is certain: after four of seven members no voxel is open, and three do not run."""
    folder = make_model_folder(folds=())
    for number in range(7):
        write_checkpoint(folder, 0, f"checkpoint_{number}.pth", seed=32, logit_scale=1e6)
    images = make_image(tmp_path / "images")
    expected = predicted(folder, images, tmp_path / "all")
    all_patches = sum(patches)
    patches.clear()
    np.testing.assert_array_equal(predicted(folder, images, tmp_path / "some", early_exit="label"), expected)
    assert sum(patches) * 7 == all_patches * 4
    # the members left out count as those before them, which all said the same
    assert row_of(tmp_path / "some") == row_of(tmp_path / "all")
    assert float(row_of(tmp_path / "some")["pairwise_dice"]) == 1


def probabilities_of(folder, images, output, early_exit):
    predicted(folder, images, output, early_exit=early_exit, save_probabilities=True, use_gaussian=False)
    with np.load(output / "case.npz") as archive:
        return archive["probabilities"]


def test_where_members_still_ran_the_probabilities_are_those_of_all(seven_members, make_image, tmp_path):
    """A voxel that was closed after d of seven members has a gap of more than (7 − d)/d, which is 1/6 or more. So
    where the gap is smaller, all seven have run."""
    folder, images = seven_members(), make_image(tmp_path / "images", shape_zyx=IMAGE)
    found, expected = (probabilities_of(folder, images, tmp_path / str(word), word) for word in ("label", None))
    open_to_the_end = gap_of_two_largest(torch.tensor(found)).numpy() < 1 / 6 - 1e-5
    assert open_to_the_end.any()
    np.testing.assert_allclose(found[:, open_to_the_end], expected[:, open_to_the_end], atol=1e-5)
    assert np.abs(found - expected).max() > 0.1  # elsewhere they are those of fewer members


def test_regions_are_segmented_as_by_all_members(make_model_folder, write_checkpoint, make_image, tmp_path, patches):
    folder = make_model_folder(
        folds=(), labels={"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=[1, 2]
    )
    for number, seed in enumerate([42] * 5 + [1, 2]):
        write_checkpoint(folder, 0, f"checkpoint_{number}.pth", seed=seed, logit_scale=SCALE)
    images = make_image(tmp_path / "images", shape_zyx=IMAGE)
    expected = predicted(folder, images, tmp_path / "all")
    all_patches = sum(patches)
    patches.clear()
    np.testing.assert_array_equal(predicted(folder, images, tmp_path / "some", early_exit="label"), expected)
    assert sum(patches) < all_patches
    assert len(np.unique(expected)) == 3


def test_two_model_folders_with_weights_are_segmented_as_by_all_members(seven_members, make_image, tmp_path, patches):
    folders = [seven_members("first"), seven_members("second", **GEOMETRIES["3d, resampled and transposed"])]
    images = make_image(tmp_path / "images", shape_zyx=IMAGE)
    expected = predicted(folders, images, tmp_path / "all", model_weights=[3.0, 1.0])
    all_patches = sum(patches)
    patches.clear()
    found = predicted(folders, images, tmp_path / "some", model_weights=[3.0, 1.0], early_exit="label")
    np.testing.assert_array_equal(found, expected)
    assert sum(patches) < all_patches


def test_the_information_rule_leaves_out_more_and_changes_little(seven_members, make_image, tmp_path, patches):
    folder, images = seven_members(), make_image(tmp_path / "images", shape_zyx=IMAGE)
    expected = predicted(folder, images, tmp_path / "all")
    all_patches = sum(patches)
    patches.clear()
    found = predicted(folder, images, tmp_path / "some", early_exit="information")
    # the first five members are alike: after three nothing moves any more
    assert sum(patches) * 7 == all_patches * 3
    assert (found == expected).mean() > 0.5


def test_a_mixture_runs_over_all_tiles_as_long_as_it_needs_one(seven_members, make_image, tmp_path, patches):
    """Its memory is that of the whole volume. Two classifiers, seven members: every member that runs at all runs
    over all tiles twice."""
    folder = seven_members()
    for path in sorted((folder / "fold_0").glob("*.pth")):
        checkpoint = load_checkpoint(path)
        weights = checkpoint["network_weights"]
        mixed = {f"classifiers.{index}.{name}": tensor for index in (0, 1) for name, tensor in weights.items()}
        save_checkpoint(
            {**checkpoint, "network_weights": mixed | {"regions": torch.tensor(False)},
             "trainer_name": "nnUNetTrainerStreaming"},
            path,
        )  # fmt: skip
    images = make_image(tmp_path / "images", shape_zyx=IMAGE)
    expected = predicted(folder, images, tmp_path / "all")
    all_patches = sum(patches)
    patches.clear()
    found = predicted(folder, images, tmp_path / "some", early_exit="label")
    np.testing.assert_array_equal(found, expected)
    members_run, rest = divmod(sum(patches), all_patches // 7)
    assert rest == 0
    assert 4 <= members_run <= 7


# --- what is refused ---


def test_early_exit_with_averaged_logits_is_refused(make_model_folder):
    with pytest.raises(ValueError, match=r"averaged logits\. Leave out --early-exit or --average logits"):
        EnsemblePredictor.from_model_folders(make_model_folder(), device="cpu", average="logits", early_exit="label")


def test_an_unknown_rule_is_refused_before_any_case(make_model_folder):
    with pytest.raises(ValueError, match="found 'entropy'"):
        EnsemblePredictor.from_model_folders(make_model_folder(), device="cpu", early_exit="entropy")


def test_early_exit_with_members_of_their_own_is_refused(make_model_folder, make_image, tmp_path):
    predictor = EnsemblePredictor.from_model_folders(
        make_model_folder(), device="cpu", allow_tqdm=False, early_exit="label"
    )
    with pytest.raises(ValueError, match=r"--save_members needs every member.*--early-exit"):
        predictor.predict_from_files(make_image(tmp_path / "images"), tmp_path / "out", save_members=True)
    assert not (tmp_path / "out").exists()


def test_a_calibration_depends_on_early_exit(make_model_folder):
    folder = make_model_folder()
    plain, early = (
        EnsemblePredictor.from_model_folders(folder, device="cpu", early_exit=word) for word in (None, "label")
    )
    assert "early_exit" not in plain.engine.settings
    assert early.engine.settings == plain.engine.settings | {"early_exit": "label"}
