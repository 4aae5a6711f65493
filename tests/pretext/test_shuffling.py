"""Shuffled boxes: the same values in each box, others untouched, later boxes over earlier ones."""

import torch

from nnunet_ext.pretext.random_boxes import Boxes
from nnunet_ext.pretext.shuffling import shuffled_sources, voxels_of


def shuffle(image, *boxes, seed=0):
    """The image after a shuffle of boxes, each ((start, side) per axis)."""
    starts, sides = torch.tensor(boxes).unbind(-1)
    sources = shuffled_sources(image.shape, Boxes(starts, sides), torch.Generator().manual_seed(seed))
    return image.flatten()[sources].reshape(image.shape)


def numbered(*shape):
    return torch.arange(torch.tensor(shape).prod()).reshape(shape)


def test_the_voxels_of_a_box_are_its_indices_in_the_flat_image():
    box, flat = voxels_of(Boxes(torch.tensor([[1, 2], [0, 0]]), torch.tensor([[2, 2], [1, 1]])), (3, 4))
    assert box.tolist() == [0, 0, 0, 0, 1]
    assert flat.tolist() == [6, 7, 10, 11, 0]  # rows of four: (1, 2), (1, 3), (2, 2), (2, 3); (0, 0)


def test_each_box_keeps_its_values_and_the_rest_of_the_image_is_unchanged():
    image = numbered(6, 8, 5)
    boxes = [(slice(0, 3), slice(1, 5), slice(0, 5)), (slice(3, 6), slice(5, 8), slice(2, 4))]  # apart
    shuffled = shuffle(image, *[[(each.start, each.stop - each.start) for each in box] for box in boxes])
    outside = torch.ones_like(image, dtype=torch.bool)
    for box in boxes:
        assert sorted(shuffled[box].flatten().tolist()) == sorted(image[box].flatten().tolist())
        assert not torch.equal(shuffled[box], image[box])
        outside[box] = False
    assert torch.equal(shuffled[outside], image[outside])


def test_every_order_of_a_box_is_equally_likely():
    orders = [tuple(shuffle(numbered(3), [(0, 3)], seed=seed).tolist()) for seed in range(600)]
    assert len(set(orders)) == 6
    assert all(70 < orders.count(order) < 130 for order in set(orders))


def test_boxes_read_the_image_before_the_shuffle_and_the_last_one_counts():
    image = numbered(1, 6)
    shuffled = shuffle(image, [(0, 1), (0, 4)], [(0, 1), (2, 4)])
    assert sorted(shuffled[0, 2:].tolist()) == [2, 3, 4, 5]  # the second box, whole and from the original
    assert set(shuffled[0, :2].tolist()) <= {0, 1, 2, 3}  # what is left of the first one


def test_without_boxes_and_with_boxes_of_one_voxel_nothing_changes():
    image = numbered(4, 4)
    nothing = torch.zeros((0, 2), dtype=torch.int64)
    assert torch.equal(shuffled_sources((4, 4), Boxes(nothing, nothing), torch.Generator()), image.flatten())
    assert torch.equal(shuffle(image, [(1, 1), (2, 1)]), image)
