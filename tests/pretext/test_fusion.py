"""Fused images: coefficients 0 and 1, one in between, and the random classes."""

import torch

from nnunet_ext.pretext.fusion import FusionOptions, fused, random_classes


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_coefficient_0_is_the_background_1_the_foreground_and_a_quarter_in_between():
    foreground, background = torch.full((1, 2, 1, 3), 8.0), torch.full((1, 2, 1, 3), 4.0)
    background[:, 1] = 0.0
    image = fused(foreground, background, torch.tensor([[[[0, 4, 1]]]]), steps=4)
    assert image[0, 0].tolist() == [[4, 8, 5]]
    assert image[0, 1].tolist() == [[0, 8, 2]]


def test_an_image_fused_with_itself_is_unchanged():
    image = torch.randn((1, 1, 16, 16), generator=seeded())
    classes = random_classes((16, 16), FusionOptions(), seeded())[None, None]
    torch.testing.assert_close(fused(image, image, classes, 4), image)


def test_classes_are_0_outside_of_boxes_and_the_last_box_counts():
    one_box = FusionOptions(fewest_boxes=1, most_boxes=1, shortest_side=0.5, longest_side=0.5)
    sizes = {int((random_classes((8, 8), one_box, seeded(seed)) > 0).sum()) for seed in range(30)}
    assert sizes == {0, 16}  # a box of class 0 cannot be seen
    everywhere = FusionOptions(fewest_boxes=3, most_boxes=3, shortest_side=1, longest_side=1)
    drawn = {tuple(random_classes((4, 4), everywhere, seeded(seed)).unique().tolist()) for seed in range(60)}
    assert drawn == {(0,), (1,), (2,), (3,), (4,)}


def test_the_default_boxes_are_the_papers_for_a_patch_of_160_voxels():
    options = FusionOptions()
    assert (int(options.shortest_side * 160), int(options.longest_side * 160), options.classes) == (8, 100, 5)
    covered = [(random_classes((40, 40, 40), options, seeded(seed)) > 0).float().mean() for seed in range(10)]
    assert 0.2 < float(torch.stack(covered).mean()) < 0.9


def test_without_boxes_all_voxels_are_background():
    nothing = FusionOptions(fewest_boxes=0, most_boxes=0)
    assert int(random_classes((4, 4), nothing, seeded()).sum()) == 0
