"""Masks of whole blocks: exact numbers, any grid, the same at every resolution."""

import pytest
import torch

from nnunet_ext.masking.blocks import (
    block_grid,
    blocks_of,
    hidden_blocks,
    random_ratio,
    random_visible_blocks,
    visible_voxels,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_papers_grid_and_an_anisotropic_one():
    assert block_grid((160, 160, 160), (32, 32, 32)) == (5, 5, 5)
    assert block_grid((20, 256, 256), (4, 32, 32)) == (5, 8, 8)
    assert block_grid((64, 48), (16, 16)) == (4, 3)


def test_blocks_that_do_not_fill_the_patch_are_refused():
    with pytest.raises(ValueError, match=r"\[40, 56, 40\] voxels and blocks of \[16, 16, 16\]"):
        block_grid((40, 56, 40), (16, 16, 16))


@pytest.mark.parametrize(
    ("grid", "ratio", "hidden"),
    [
        ((5, 5, 5), 0.75, 93),  # 93.75, rounded down
        ((5, 5, 5), 0.6, 75),
        ((5, 5, 5), 0.9, 112),
        ((10, 10), 0.29, 29),  # 0.29 * 100 is 28.999999999999996
        ((4, 3), 0.0, 0),
    ],
)
def test_the_number_of_hidden_blocks_is_exact_in_every_sample(grid, ratio, hidden):
    assert hidden_blocks(grid, ratio) == hidden
    visible = random_visible_blocks(3, grid, ratio, generator())
    assert visible.shape == (3, 1, *grid)
    assert (~visible).flatten(1).sum(1).tolist() == [hidden] * 3


def test_two_blocks_must_stay_visible():
    assert hidden_blocks((2, 2), 0.5) == 2
    with pytest.raises(ValueError, match="hides 3 of 4"):
        hidden_blocks((2, 2), 0.75)
    with pytest.raises(ValueError, match="below 1; found 1"):
        hidden_blocks((2, 2), 1.0)


def test_every_block_is_hidden_equally_often_and_samples_differ():
    visible = random_visible_blocks(4000, (2, 3), 0.5, generator())
    shares = visible.float().mean(0).flatten()
    assert (shares - 0.5).abs().max() < 0.04  # five standard deviations
    assert not torch.equal(visible[0], visible[1])


def test_a_seed_repeats_the_masks():
    first, again = (random_visible_blocks(2, (4, 4), 0.5, generator(7)) for _ in range(2))
    assert torch.equal(first, again)


def test_ratios_are_uniform_between_two_values():
    source = generator()
    ratios = [random_ratio(0.6, 0.9, source) for _ in range(1000)]
    assert 0.6 <= min(ratios) < 0.61
    assert 0.89 < max(ratios) <= 0.9
    assert random_ratio(0.75, 0.75, source) == 0.75


def test_a_voxel_is_visible_if_its_block_is_at_every_resolution():
    blocks = torch.tensor([[[[1, 0], [0, 1], [0, 0]]]], dtype=torch.bool)
    assert visible_voxels(blocks, (3, 4))[0, 0].tolist() == [[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]
    full = visible_voxels(blocks, (12, 16))
    assert torch.equal(full[0, 0], blocks[0, 0].float().repeat_interleave(4, 0).repeat_interleave(8, 1))
    assert torch.equal(blocks_of(full, (4, 8)), blocks.float())


def test_where_features_are_coarser_than_the_grid_all_voxels_are_visible():
    blocks = random_visible_blocks(2, (4, 4), 0.5, generator())
    assert visible_voxels(blocks, (2, 2)).eq(1).all()
    assert visible_voxels(blocks, (2, 8)).eq(1).all()


def test_features_that_are_no_multiple_of_the_grid_are_refused():
    with pytest.raises(ValueError, match=r"found \[6, 4\] voxels for \[4, 4\] blocks"):
        visible_voxels(torch.ones(1, 1, 4, 4), (6, 4))
