"""The corruption of Models Genesis, one kind at a time."""

import torch

from nnunet_ext.pretext.genesis import GenesisOptions, corrupted
from nnunet_ext.pretext.painting import number_of_boxes, painted_inside, painted_outside

NOTHING = {"shuffling": 0.0, "grey_values": 0.0, "painting": 0.0}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(channels=1, shape=(40, 40)):
    return torch.randn((channels, *shape), generator=seeded(99))


def test_with_all_probabilities_zero_the_image_is_unchanged():
    image = noise()
    torch.testing.assert_close(corrupted(image, GenesisOptions(**NOTHING), seeded()), image, atol=1e-5, rtol=0)


def test_shuffling_moves_the_voxels_of_all_channels_together_and_not_far():
    rows = torch.arange(40.0)[:, None].expand(40, 40)
    image = torch.stack((rows, 2 * rows))
    changed = corrupted(image, GenesisOptions(**NOTHING | {"shuffling": 1.0}), seeded())
    torch.testing.assert_close(changed[1], 2 * changed[0], atol=1e-4, rtol=0)
    moved = (changed[0] - rows).abs()
    assert 0.5 < float(moved.max()) < 3.001  # sides of at most four voxels


def test_grey_values_keep_or_reverse_their_order():
    image = torch.linspace(-2, 5, 1600).reshape(1, 40, 40)
    for seed in range(10):
        changed = corrupted(image, GenesisOptions(**NOTHING | {"grey_values": 1.0}), seeded(seed)).flatten()
        assert bool((changed.diff() > -1e-5).all()) or bool((changed.diff() < 1e-5).all())


def test_painted_voxels_are_noise_in_the_range_of_the_image_and_the_others_are_unchanged():
    image = 100 + 50 * noise(shape=(60, 60))
    changed = corrupted(image, GenesisOptions(**NOTHING | {"painting": 1.0, "inside": 0.0}), seeded(3))
    painted = (changed - image).abs() > 1e-3
    assert 0.3 < float(painted.float().mean()) < 0.95
    black, white = torch.quantile(image, torch.tensor([0.01, 0.99]))
    assert float(black) - 1e-3 <= float(changed[painted].min())
    assert float(changed[painted].max()) <= float(white) + 1e-3


def test_inside_at_most_five_small_boxes_are_painted_outside_at_least_one_large_box_is_left():
    for seed in range(20):
        inside = int(painted_inside((60, 60), seeded(seed)).sum())
        assert inside <= 5 * 20 * 20
        left = 3600 - int(painted_outside((60, 60), seeded(seed)).sum())
        assert 26 * 26 <= left <= 5 * 35 * 35  # 60 - 34 and 60 - 25 voxels per side


def test_most_images_have_five_boxes():
    generator = seeded()
    counts = [number_of_boxes(0, generator) for _ in range(1000)]
    assert set(counts) == {0, 1, 2, 3, 4, 5}
    assert abs(counts.count(5) / 1000 - 0.95**5) < 0.04


def test_the_same_seed_gives_the_same_image():
    image = noise(2, (20, 20, 20))
    first, second, third = (corrupted(image, GenesisOptions(), seeded(seed)) for seed in (4, 4, 5))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert first.shape == image.shape
