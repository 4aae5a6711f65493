"""Synthetic errors of a segmentation."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_ext.error_maps.corruptions import CORRUPTIONS, Grid, corruptions

GRID = Grid(spacing_mm=(8.0, 1.0, 1.0), stack_axis=0)


@pytest.fixture
def labels() -> np.ndarray:
    """(z, y, x): a ring of label 1 around label 2 on slices 1 to 4, and a second piece of label 1."""
    result = np.zeros((6, 32, 32), dtype=np.uint8)
    result[1:5, 8:24, 8:24] = 1
    result[1:5, 11:21, 11:21] = 2
    result[2:4, 2:5, 26:30] = 1
    return result


def corrupted(kind: str, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    return CORRUPTIONS[kind](labels, GRID, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("seed", range(5))
def test_a_corruption_is_wrong_somewhere_and_has_the_same_labels(kind, seed, labels):
    before = labels.copy()
    found = corrupted(kind, labels, seed)
    assert np.array_equal(labels, before)
    assert found.shape == labels.shape
    assert found.dtype == labels.dtype
    assert (found != labels).any()
    assert set(np.unique(found)) <= {0, 1, 2}


@pytest.mark.parametrize("seed", range(5))
def test_dilation_only_adds_one_label_around_itself_within_the_slice(seed, labels):
    found = corrupted("dilation", labels, seed)
    changed = found != labels
    (label,) = np.unique(found[changed])
    rows, own = (np.flatnonzero(mask.any(axis=(0, 2))) for mask in (changed, labels == label))
    assert not changed[[0, 5]].any()  # 8 mm away
    assert own.min() - 4 <= rows.min()  # at most 4 voxels
    assert rows.max() <= own.max() + 4


@pytest.mark.parametrize("seed", range(5))
def test_erosion_takes_one_label_and_fills_in_its_neighbours(seed, labels):
    found = corrupted("erosion", labels, seed)
    changed = found != labels
    (label,) = np.unique(labels[changed])
    assert set(np.unique(found[changed])) <= ({1} if label == 2 else {0, 2})


def test_shift_moves_within_thick_slices(labels):
    found = corrupted("shift", labels)
    assert [bool(part.any()) for part in found] == [bool(part.any()) for part in labels]


def test_dropped_slices_are_one_or_two(labels):
    for seed in range(10):
        found = corrupted("slices", labels, seed)
        changed = (found != labels).any(axis=(1, 2))
        assert changed.sum() in (1, 2)
        assert not found[changed].any()


def test_a_dropped_component_leaves_the_others(labels):
    sizes = {(labels == 2).sum(), 4 * (16 * 16 - 10 * 10), 2 * 3 * 4}
    for seed in range(10):
        found = corrupted("component", labels, seed)
        assert (found != labels).sum() in sizes


# --- which ones a case gets ---


def test_the_same_name_and_seed_give_the_same_corruptions(labels):
    first, again, other_case, other_seed = (
        list(corruptions(case, labels, GRID, count=2, seed=seed))
        for case, seed in (("a", 1), ("a", 1), ("b", 1), ("a", 2))
    )
    assert [kind for kind, _ in first] == [kind for kind, _ in again]
    assert all(np.array_equal(one, two) for (_, one), (_, two) in zip(first, again, strict=True))
    for other in (other_case, other_seed):
        assert any(
            kind != with_kind or not np.array_equal(one, two)
            for (kind, one), (with_kind, two) in zip(first, other, strict=True)
        )


def test_kinds_differ_within_a_case(labels):
    kinds = [kind for kind, _ in corruptions("a", labels, GRID, count=9, seed=1)]
    assert sorted(kinds) == sorted(CORRUPTIONS)


def test_a_case_without_foreground_has_none():
    empty = np.full((2, 4, 4), 3)
    assert list(corruptions("a", empty, GRID, count=5, seed=1, ignore_label=3)) == []
