"""Grey values through curves: end points, order, and outliers, which must not be cut off."""

import torch

from nnunet_ext.pretext.grey_values import KNOTS, bezier_curve, grey_range, random_curve, through_curve


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_curve_is_the_cubic_bezier():
    x, y = bezier_curve(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert (float(x[0]), float(y[0]), float(x[-1]), float(y[-1])) == (0, 0, 1, 1)
    middle = KNOTS // 2  # (first + 3 second + 3 third + last) / 8
    torch.testing.assert_close(torch.stack((x[middle], y[middle])), torch.tensor([0.5, 0.5], dtype=torch.float64))
    quarter = KNOTS // 4  # t = 1/4: weights 27/64, 27/64, 9/64, 1/64
    torch.testing.assert_close(float(x[quarter]), 10 / 64)
    torch.testing.assert_close(float(y[quarter]), 28 / 64)


def test_controls_on_the_diagonal_change_nothing():
    curve = bezier_curve(torch.tensor([[1 / 3, 1 / 3], [2 / 3, 2 / 3]]))
    values = torch.linspace(-1, 2, 31)
    torch.testing.assert_close(through_curve(values, curve), values)


def test_a_random_curve_rises_or_falls_over_the_whole_range():
    values = torch.linspace(0, 1, 200)
    directions = []
    for seed in range(60):
        mapped = through_curve(values, random_curve(seeded(seed)))
        steps = mapped.diff()
        assert bool((steps >= -1e-6).all()) or bool((steps <= 1e-6).all())
        assert {round(float(mapped[0]), 4), round(float(mapped[-1]), 4)} == {0, 1}
        directions.append(bool(mapped[0] < mapped[-1]))
    assert 15 < sum(directions) < 45


def test_values_outside_of_the_range_go_on_in_the_same_direction():
    rising = torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.1, 1.0]])
    falling = torch.stack((rising[0], rising[1].flip(0)))
    values = torch.tensor([-0.5, 0.25, 0.75, 1.5])
    torch.testing.assert_close(through_curve(values, rising), torch.tensor([-0.5, 0.05, 0.55, 1.5]))
    torch.testing.assert_close(through_curve(values, falling), torch.tensor([1.5, 0.55, 0.05, -0.5]))


def test_the_range_is_from_the_first_to_the_99th_percentile_per_channel():
    channel = torch.arange(101.0)
    image = torch.stack((channel, 10 * channel + 5)).reshape(2, 1, 101)
    found = grey_range(image, seeded())
    assert (found.black.tolist(), found.white.tolist()) == ([1, 15], [99, 995])
    normalised = found.normalised(image)
    torch.testing.assert_close(normalised[0, 0, [1, 50, 99]], torch.tensor([0, 0.5, 1]))
    torch.testing.assert_close(found.restored(normalised), image)


def test_a_large_image_has_the_range_of_random_voxels():
    image = torch.rand((1, 600, 600), generator=seeded(1))
    found = grey_range(image, seeded())
    torch.testing.assert_close(torch.cat((found.black, found.white)), torch.tensor([0.01, 0.99]), atol=2e-3, rtol=0)


def test_a_constant_image_stays_almost_what_it_is():
    image = torch.full((1, 8, 8), 3.0)
    found = grey_range(image, seeded())
    changed = found.restored(through_curve(found.normalised(image), random_curve(seeded())))
    torch.testing.assert_close(changed, image, atol=2e-6, rtol=0)
