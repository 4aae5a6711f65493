"""Targets in the form that losses compute with, by hand: labels and regions, with and without an ignore label."""

import pytest
import torch

from nnunet_ext.losses.targets import (
    OutputForm,
    Target,
    mean_of_present,
    one_hot,
    probabilities_of,
    require_fitting,
    target_on_grid,
    truth_by_output,
    without_ignored,
)

LABELS = torch.tensor([[0, 1], [2, 3]])[None, None]  # (1, 1, 2, 2)


# --- truth and the voxels that count ---


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.float32, torch.uint8])
def test_ignored_labels_become_background_that_does_not_count(dtype):
    truth, counted = without_ignored(LABELS.to(dtype), ignore_label=3)
    assert truth.dtype == torch.int64
    assert truth.tolist() == [[[[0, 1], [2, 0]]]]
    assert counted.tolist() == [[[[1, 1], [1, 0]]]]


def test_without_an_ignore_label_all_voxels_count():
    truth, counted = without_ignored(LABELS)
    assert torch.equal(truth, LABELS)
    assert counted is None


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int16])
def test_the_last_channel_of_regions_marks_ignored_voxels(dtype):
    regions = torch.tensor([[1, 0], [1, 1], [0, 1]])[None].to(dtype)  # two regions and the mark of two voxels
    truth, counted = without_ignored(regions, regions=True, ignore_label=3)
    assert truth.dtype == counted.dtype == torch.float32
    assert truth.tolist() == [[[1, 0], [1, 1]]]
    assert counted.tolist() == [[[1, 0]]]


def test_without_an_ignore_label_all_channels_are_regions():
    truth, counted = without_ignored(torch.ones(1, 3, 2).bool(), regions=True)
    assert torch.equal(truth, torch.ones(1, 3, 2))
    assert counted is None


def test_the_given_target_is_left_as_it_is():
    given = LABELS.clone()
    without_ignored(given, ignore_label=3)
    assert torch.equal(given, LABELS)


# --- by output ---


def test_one_hot_by_hand():
    assert one_hot(LABELS[..., :1, :], 3).tolist() == [[[[1, 0]], [[0, 1]], [[0, 0]]]]


def test_the_truth_of_classes_is_one_hot_and_that_of_regions_is_itself():
    assert torch.equal(truth_by_output(Target(LABELS, None), 4), one_hot(LABELS, 4))
    regions = torch.ones(1, 2, 3)
    assert truth_by_output(Target(regions, None), 2, regions=True) is regions


def test_probabilities_are_nnunets_in_single_precision():
    # softmax of ln 1 and ln 3 is 1/4 and 3/4, sigmoid of ln 3 is 3/4
    logits = torch.tensor([[0.0, 3.0]]).where(torch.tensor([[True, False]]), torch.tensor(3.0).log())[..., None]
    torch.testing.assert_close(probabilities_of(logits), torch.tensor([[[0.25], [0.75]]]))
    torch.testing.assert_close(probabilities_of(logits, regions=True), torch.tensor([[[0.5], [0.75]]]))
    assert (
        probabilities_of(logits.half()).dtype == probabilities_of(logits.half(), regions=True).dtype == torch.float32
    )


def test_a_target_that_does_not_fit_is_refused():
    logits = torch.zeros(2, 3, 4)
    require_fitting(logits, torch.zeros(2, 1, 4), regions=False)
    require_fitting(logits, torch.zeros(2, 3, 4), regions=True)
    with pytest.raises(ValueError, match=r"\(2, 1, 4\).*found \(1, 1, 4\)"):
        require_fitting(logits, torch.zeros(1, 1, 4), regions=False)
    with pytest.raises(ValueError, match="at least one voxel"):
        require_fitting(torch.zeros(0, 3, 4), torch.zeros(0, 1, 4), regions=False)


# --- on a coarser grid ---


def test_the_nearest_voxels_by_hand():
    # Coarse voxel i of 2 covers 0..1 and 2..3 of 4; its centre is between them and rounds up: 1 and 3.
    target = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert target_on_grid(target, torch.zeros(1, 3, 2, 2)).tolist() == [[[[5, 7], [13, 15]]]]
    assert target_on_grid(target, torch.zeros(1, 3, 4, 2)).tolist() == [
        [[[1, 3], [5, 7], [9, 11], [13, 15]]]  # one axis as it was
    ]


def test_a_target_on_the_logits_grid_stays_as_it_is():
    target = torch.zeros(2, 1, 4, 4)
    assert target_on_grid(target, torch.zeros(2, 3, 4, 4)) is target


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.float32, torch.uint8, torch.bool])
def test_the_target_keeps_its_type(dtype):
    target = torch.tensor([[0, 1], [1, 1]]).to(dtype).repeat_interleave(2, 0).repeat_interleave(2, 1)[None, None]
    coarse = target_on_grid(target, torch.zeros(1, 3, 2, 2))
    assert coarse.dtype == dtype
    assert coarse.long().tolist() == [[[[0, 1], [1, 1]]]]


def test_labels_are_not_mixed_so_that_the_ignore_label_stays_one():
    # A mean of labels 0, 1, 3 (ignore) could be any other label
    target = torch.tensor([0, 3, 1, 3, 3, 0, 0, 1]).float().reshape(1, 1, 1, 8)
    assert target_on_grid(target, torch.zeros(1, 3, 1, 4)).flatten().tolist() == [3, 3, 0, 1]


def test_every_region_of_a_target_is_taken_at_the_same_voxels_in_3d():
    # Grid (2, 4, 4) to (2, 2, 1): voxels 0, 1 along the first axis; 1, 3 along the second; 2 along the last
    target = torch.randint(2, (2, 3, 2, 4, 4), generator=torch.Generator().manual_seed(0)).bool()
    assert torch.equal(target_on_grid(target, torch.zeros(2, 3, 2, 2, 1)), target[:, :, :, 1::2, 2:3])


# --- the foreground ---


def test_the_foreground_of_classes_is_all_but_the_background():
    labels = torch.tensor([[[0, 1, 1]], [[0, 0, 2]]])  # two patches
    found = OutputForm().foreground(torch.zeros(2, 4, 3), labels)
    assert torch.equal(found.p, torch.full((2, 3, 3), 0.25))
    assert found.g.tolist() == [[[0, 1, 1], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 1], [0, 0, 0]]]
    assert found.present.tolist() == [[True, False, False], [False, True, False]]
    assert found.counted is None


def test_the_foreground_of_regions_is_all_of_them():
    target = torch.tensor([[[1, 0], [0, 0]]])
    found = OutputForm(regions=True).foreground(torch.zeros(1, 2, 2), target)
    assert torch.equal(found.p, torch.full((1, 2, 2), 0.5))
    assert torch.equal(found.g, target.float())
    assert found.present.tolist() == [[True, False]]


def test_ignored_voxels_are_0_in_prediction_and_truth():
    classes = OutputForm(ignore_label=9).foreground(torch.zeros(1, 2, 3), torch.tensor([[[1, 0, 9]]]))
    target = torch.tensor([[[1, 0, 1], [0, 0, 1]]])  # a region and the mark
    regions = OutputForm(regions=True, ignore_label=9).foreground(torch.zeros(1, 1, 3), target)
    for found in (classes, regions):
        assert found.p.tolist() == [[[0.5, 0.5, 0]]]
        assert found.g.tolist() == [[[1, 0, 0]]]
        assert found.counted.tolist() == [[[1, 1, 0]]]


def test_a_class_in_ignored_voxels_only_is_absent():
    target = torch.tensor([[[0, 0, 1], [0, 0, 1]]])
    found = OutputForm(regions=True, ignore_label=9).foreground(torch.zeros(1, 1, 3), target)
    assert found.present.tolist() == [[False]]


def test_a_foreground_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 1, 4\).*found \(1, 1, 3\)"):
        OutputForm().foreground(torch.zeros(1, 2, 4), torch.zeros(1, 1, 3))


def test_masks_of_one_patch():
    masks = OutputForm(ignore_label=9).masks(torch.tensor([[0, 1, 2, 9]]), 4)
    assert masks.dtype == torch.bool
    assert masks.int().tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    regions = OutputForm(regions=True, ignore_label=9).masks(torch.tensor([[1, 1, 1], [0, 1, 0], [0, 0, 1]]), 2)
    assert regions.int().tolist() == [[1, 1, 0], [0, 1, 0]]


def test_the_mean_of_what_is_present():
    values = torch.tensor([[1.0, 2.0], [6.0, torch.nan]], requires_grad=True)
    mean = mean_of_present(values, torch.tensor([[True, True], [True, False]]))
    mean.backward()
    assert mean.item() == 3
    torch.testing.assert_close(values.grad, torch.tensor([[1 / 3, 1 / 3], [1 / 3, 0]]))


def test_the_mean_of_nothing_is_0_without_a_gradient():
    values = torch.ones(2, 2, requires_grad=True)
    mean = mean_of_present(values, torch.zeros(2, 2, dtype=torch.bool))
    mean.backward()
    assert mean.item() == 0
    assert not values.grad.any()
