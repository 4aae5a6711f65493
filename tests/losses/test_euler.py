"""The soft Euler characteristic: shapes whose characteristic is known, scikit-image's count, and the loss by hand."""

from itertools import product

import numpy as np
import pytest
import torch
from drawn_targets import (
    certain,
    drawn,
    foreground,
    logit,
    mask,
    random_labels,
    random_logits,
    require_agreement,
    value_of,
)
from skimage.measure import euler_number

from nnunet_ext.losses.euler import EulerTerm, blocks_of, soft_characteristic
from nnunet_ext.losses.targets import OutputForm

BOTH = pytest.mark.parametrize("connectivity", ["faces", "corners"])


def characteristic(values, connectivity):
    return soft_characteristic(torch.as_tensor(values, dtype=torch.float32)[None], connectivity).item()


def euler(logits, labels, **options):
    return value_of(EulerTerm(options.pop("form", OutputForm()), **options), logits, labels)


def grid(side=15):
    return np.indices((side,) * 3) - side // 2


def ball(radius=5):
    return (grid() ** 2).sum(axis=0) <= radius**2


def torus(radius=5, thickness=2):
    z, y, x = grid()
    return (np.hypot(y, x) - radius) ** 2 + z**2 <= thickness**2


def numpy_faces(p):
    """Voxels less pairs of neighbours plus squares less cubes, each the product of its voxels."""
    total = 0.0
    for sides in product((1, 2), repeat=p.ndim):
        for corner in np.ndindex(*(length - side + 1 for length, side in zip(p.shape, sides, strict=True))):
            cell = p[tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))]
            total += (-1) ** sides.count(2) * np.prod(cell)
    return total


def numpy_corners(p):
    """Vertices less edges plus faces less cubes of closed voxels, each 1 - prod(1 - p) over voxels that have it."""
    padded, total = np.pad(p, 1), 0.0
    for sides in product((1, 2), repeat=p.ndim):  # 2: the cell lies between two voxels along this axis
        starts = [range(1 if side == 1 else 0, length + 1) for length, side in zip(p.shape, sides, strict=True)]
        for corner in product(*starts):
            cell = padded[tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))]
            total += (-1) ** sides.count(1) * (1 - np.prod(1 - cell))
    return total


NUMPY = {"faces": numpy_faces, "corners": numpy_corners}


# --- shapes ---


@BOTH
def test_solids_of_known_topology(connectivity):
    hollow = ball() & ~ball(2)
    two = np.concatenate([ball(), ball()])
    expected = {"ball": (ball(), 1), "torus": (torus(), 0), "hollow sphere": (hollow, 2), "two balls": (two, 2)}
    for name, (inside, number) in expected.items():
        assert characteristic(inside, connectivity) == number, name


@BOTH
@pytest.mark.parametrize(
    ("rows", "number"),
    [
        (["11.", "11.", "..."], 1),
        (["111", "1.1", "111"], 0),
        (["11111", "1.1.1", "11111"], -1),
        (["1..1", "...1", "11.1"], 3),
        (["...", "..."], 0),
        (["1"], 1),
    ],
)
def test_pictures_of_known_topology(rows, number, connectivity):
    """Objects less holes."""
    assert characteristic(mask(*rows), connectivity) == number


@BOTH
def test_a_line_counts_its_pieces(connectivity):
    assert characteristic(mask("11.111..1"), connectivity) == 3


def test_voxels_that_touch_at_a_corner_are_two_objects_or_one():
    at_corner, at_edge, diagonal = np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), mask("1.", ".1")
    at_corner[0, 0, 0] = at_corner[1, 1, 1] = 1
    at_edge[0, 0, 0] = at_edge[0, 1, 1] = 1
    for touching in (at_corner, at_edge, diagonal):
        assert characteristic(touching, "faces") == 2
        assert characteristic(touching, "corners") == 1


def test_a_ring_of_corners_has_a_hole_or_four_objects():
    ring = mask(".1.", "1.1", ".1.")
    assert characteristic(ring, "faces") == 4
    assert characteristic(ring, "corners") == 0


@BOTH
@pytest.mark.parametrize("shape", [(7, 8), (5, 6, 4), (1, 6, 7)])
def test_of_masks_it_is_scikit_images_number(shape, connectivity):
    rng = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.8):
        noise = rng.random(shape) < share
        expected = euler_number(noise, connectivity=1 if connectivity == "faces" else len(shape))
        assert characteristic(noise, connectivity) == pytest.approx(expected, abs=1e-4)


def test_an_object_and_its_background_belong_to_different_connectivities():
    """Holes of 4-connected objects in the plane are 8-connected: chi_4(mask) + chi_8(rest) = 1 with a frame."""
    noise = np.pad(np.random.default_rng(1).random((9, 9)) < 0.5, 1)
    assert characteristic(noise, "faces") + characteristic(~noise, "corners") == pytest.approx(1)


# --- soft values ---


def test_two_doubtful_voxels_by_hand():
    """p = 1/2 each. Faces: 1/2 + 1/2 - 1/4.

    Corners, on a line: three vertices with 1/2, 3/4, 1/2 less two voxels of 1/2.
    """
    assert characteristic([0.5, 0.5], "faces") == pytest.approx(0.75)
    assert characteristic([0.5, 0.5], "corners") == pytest.approx(1.75 - 1)


@BOTH
@pytest.mark.parametrize("shape", [(6,), (4, 5), (3, 4, 3), (1, 4, 3)])
def test_soft_values_are_the_sum_over_all_cells(shape, connectivity):
    p = np.random.default_rng(0).random(shape)
    assert characteristic(p, connectivity) == pytest.approx(NUMPY[connectivity](p), rel=1e-4)


@BOTH
@pytest.mark.parametrize("shape", [(3, 4), (2, 2, 3)])
def test_gradients_in_double_precision_are_those_of_finite_differences(shape, connectivity):
    p = torch.rand((2, *shape), dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: soft_characteristic(values, connectivity), p)


# --- windows ---


def test_blocks_lie_side_by_side_in_order():
    values = torch.arange(24.0).reshape(1, 1, 4, 6)
    blocks = blocks_of(values, 3)  # 4 rows are 3 + 1, 6 columns 3 + 3
    assert blocks.shape == (4, 3, 3)
    assert blocks[0].tolist() == [[0, 1, 2], [6, 7, 8], [12, 13, 14]]
    assert blocks[1].tolist() == [[3, 4, 5], [9, 10, 11], [15, 16, 17]]
    assert blocks[2].tolist() == [[18, 19, 20], [0, 0, 0], [0, 0, 0]]  # zeros where the patch ends


@pytest.mark.parametrize("shape", [(4, 6), (5, 7), (3, 5, 4), (1, 5, 5)])
@pytest.mark.parametrize("window", [1, 2, 3, 16])
def test_every_voxel_is_in_the_block_that_it_belongs_to(shape, window):
    values = torch.rand((2, 3, *shape), generator=torch.Generator().manual_seed(0))
    blocks = blocks_of(values, window)
    sides = [min(window, length) for length in shape]
    starts = list(product(*(range(0, length, side) for length, side in zip(shape, sides, strict=True))))
    assert blocks.shape == (2 * 3 * len(starts), *sides)
    for number, block in enumerate(blocks):
        structure, position = divmod(number, len(starts))
        inside = tuple(slice(start, start + side) for start, side in zip(starts[position], sides, strict=True))
        expected = values.flatten(end_dim=1)[structure][inside]
        assert torch.equal(block[tuple(slice(length) for length in expected.shape)], expected)
        assert block.sum().item() == pytest.approx(expected.sum().item())


# --- the loss ---


def test_a_hole_that_is_not_found_costs_1():
    ring, disc = drawn("111", "1.1", "111"), drawn("111", "111", "111")
    assert euler(certain(disc, 2), ring).item() == 1
    assert euler(certain(ring, 2), disc).item() == 1


def test_where_an_object_lies_does_not_count():
    assert euler(certain(drawn("11...", "....."), 2), drawn(".....", "...11")).item() == 0


def test_windows_are_compared_one_by_one():
    """Two windows of 2 x 2: truth 1 and 1 objects, predicted 1 and 0. With one window of 2 x 4: 2 against 1."""
    truth, found = drawn("1..1", "...."), drawn("1...", "....")
    assert euler(certain(found, 2), truth, window=2).item() == 1 / 2
    assert euler(certain(found, 2), truth, window=4).item() == 1


def test_windows_do_not_make_up_for_one_another():
    """One object too few in the first window, one too many in the second."""
    truth, found = drawn("1...", "...."), drawn("...1", "....")
    assert euler(certain(found, 2), truth, window=2).item() == 1
    assert euler(certain(found, 2), truth, window=4).item() == 0


def test_an_object_across_windows_counts_in_each_of_them():
    """A line of five voxels in windows of two is three pieces; without it each window is wrong by 1."""
    line = drawn("11111")
    assert euler(certain(torch.zeros_like(line), 2), line, window=2).item() == 1


def test_the_connectivity_is_the_terms():
    """Two voxels that touch at a corner against one: 2 - 1 or 1 - 1."""
    touching, one = drawn("1.", ".1"), drawn("1.", "..")
    assert euler(certain(one, 2), touching, connectivity="faces").item() == 1
    assert euler(certain(one, 2), touching, connectivity="corners").item() == 0


def test_a_doubtful_object_costs_its_doubt():
    """p = 1/4 in a voxel apart from the truth."""
    truth = drawn("1....")
    logits = certain(truth, 2)
    logits[0, :, 4] = torch.tensor([0, logit(0.25)])
    assert euler(logits, truth).item() == pytest.approx(0.25, rel=1e-5)


@BOTH
@pytest.mark.parametrize(("shape", "window"), [((5, 6), 4), ((3, 3, 4), 3)])
def test_value_and_gradient_are_those_of_the_definition(shape, window, connectivity):
    """In windows that do not divide the patch; the last ones end with it, as zeros add nothing."""
    labels = random_labels(shape, batch=1)
    sides = [min(window, length) for length in shape]
    starts = list(product(*(range(0, length, side) for length, side in zip(shape, sides, strict=True))))
    windows = [tuple(slice(at, at + side) for at, side in zip(start, sides, strict=True)) for start in starts]

    def definition(exact):
        chi = NUMPY[connectivity]
        return np.mean(
            [abs(chi(p[inside]) - chi(g[inside])) for p, g in foreground(exact, labels) for inside in windows]
        )

    require_agreement(
        lambda given: euler(given, labels, window=window, connectivity=connectivity),
        definition,
        random_logits(labels),
    )
