"""Random boxes lie inside of the image, with sides between the bounds."""

import torch

from nnunet_ext.pretext.random_boxes import is_chosen, random_boxes, random_integers


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_sides_take_every_value_between_the_bounds_and_places_reach_both_borders():
    boxes = random_boxes(500, (10, 20), smallest=(2, 3), largest=(4, 3), generator=seeded())
    assert boxes.sides[:, 0].unique().tolist() == [2, 3, 4]
    assert boxes.sides[:, 1].unique().tolist() == [3]
    assert int(boxes.starts.min()) == 0
    assert (boxes.starts + boxes.sides).amax(dim=0).tolist() == [10, 20]


def test_bounds_are_cut_to_one_voxel_and_to_the_image():
    boxes = random_boxes(50, (3, 5), smallest=(0, 9), largest=(0, 99), generator=seeded())
    assert boxes.sides.unique(dim=0).tolist() == [[1, 5]]


def test_no_boxes_are_an_empty_list():
    assert list(random_boxes(0, (8, 8), (1, 1), (2, 2), seeded()).slices()) == []


def test_a_box_is_an_index():
    [box] = random_boxes(1, (1, 4), (1, 4), (1, 4), seeded()).slices()
    assert box == (slice(0, 1), slice(0, 4))


def test_integers_and_choices_have_their_probabilities():
    drawn = random_integers(torch.zeros(3000, dtype=torch.int64), torch.full((3000,), 2), seeded())
    assert all(abs(int((drawn == value).sum()) / 3000 - 1 / 3) < 0.03 for value in range(3))
    generator = seeded()
    assert abs(sum(is_chosen(0.2, generator) for _ in range(2000)) / 2000 - 0.2) < 0.03
