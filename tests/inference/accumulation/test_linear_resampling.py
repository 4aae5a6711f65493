"""Linear resampling by hand, and against nnU-Net's own function on random volumes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet

from nnunet_ext.inference.accumulation import slabs
from nnunet_ext.inference.accumulation.linear_resampling import (
    adjacent_slices,
    coarse_axis_of,
    is_linear,
    nearest_slices,
    resampled,
)
from nnunet_ext.inference.accumulation.slabs import assembled

PLANNED = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
BY_SPACING = coarse_axis_of(partial(resample_data_or_seg_to_shape, **PLANNED))


def resampled_whole(logits, shape, *spacings, settings=PLANNED):
    coarse_axis = coarse_axis_of(partial(resample_data_or_seg_to_shape, **settings))
    return assembled(resampled(logits, shape, *spacings, coarse_axis), (len(logits), *shape))


# --- which function of the plans it stands for ---


def test_the_function_that_nnunet_plans_is_recognised():
    assert is_linear(partial(resample_data_or_seg_to_shape, **PLANNED))


@pytest.mark.parametrize(
    "other",
    [
        partial(resample_data_or_seg_to_shape, **{**PLANNED, "order": 3}),
        partial(resample_data_or_seg_to_shape, **{**PLANNED, "order_z": 1}),
        partial(resample_data_or_seg_to_shape, **{**PLANNED, "is_seg": True}),
        partial(resample_data_or_seg_to_shape, order_z=0),  # cubic by default
        partial(resample_data_or_seg_to_shape, **PLANNED, something_new=1),
        partial(resample_torch_fornnunet, is_seg=False),
        resample_data_or_seg_to_shape,
    ],
    ids=["cubic", "linear along z", "labels", "default order", "unknown setting", "another function", "no settings"],
)
def test_anything_else_is_left_to_nnunet(other):
    assert not is_linear(other)


# --- by hand ---


def test_between_the_centres_of_voxels_values_are_linear_and_beyond_them_constant():
    """0 and 4 at the centres 0.5 and 1.5; four new voxels at 0.25, 0.75, 1.25 and 1.75."""
    logits = torch.tensor([0.0, 4.0]).reshape(1, 1, 1, 2)
    assert resampled_whole(logits, (1, 1, 4), (1, 1, 1), (1, 1, 0.5)).flatten().tolist() == [0, 1, 3, 4]


def test_across_thick_slices_the_nearest_one_counts():
    """Slices 10 mm apart: values 0 and 4 are repeated, not mixed; columns are mixed as before."""
    logits = torch.tensor([[0.0, 2.0], [4.0, 6.0]]).reshape(1, 2, 1, 2)  # (C, slices, rows, columns)
    repeated = resampled_whole(logits, (4, 1, 2), (10, 1, 1), (5, 1, 1))
    assert repeated[0, :, 0, 0].tolist() == [0, 0, 4, 4]
    assert repeated[0, :, 0, 1].tolist() == [2, 2, 6, 6]


def test_the_nearest_slice_of_a_tie_is_the_upper_one():
    """3 slices to 2: new centres at 0.75 and 2.25 of 3, in the first and the last. 2 to 1: at 1, a tie."""
    assert nearest_slices(3, 2) == [(0, 0, 0), (2, 2, 0)]
    assert nearest_slices(2, 1) == [(1, 1, 0)]
    assert [lower for lower, _, _ in nearest_slices(2, 5)] == [0, 0, 1, 1, 1]


def test_a_new_slice_lies_between_two_old_ones():
    """2 slices to 4: centres at 0.25, 0.75, 1.25 and 1.75 of old centres 0.5 and 1.5."""
    assert adjacent_slices(2, 4) == [(0, 1, 0), (0, 1, 0.25), (0, 1, 0.75), (1, 1, 0)]
    assert adjacent_slices(1, 2) == [(0, 0, 0), (0, 0, 0)]


def test_slabs_of_any_thickness_make_up_the_same_volume(monkeypatch):
    logits = torch.randn((2, 7, 8, 9), generator=torch.Generator().manual_seed(0))
    volume = resampled(logits, (11, 10, 9), (1, 1, 1), (0.6, 0.8, 1), BY_SPACING)
    whole = assembled(volume, (2, 11, 10, 9))
    monkeypatch.setattr(slabs, "VALUES_PER_SLAB_CPU", 3 * 2 * 10 * 9)  # three slices
    pieces = list(volume.slabs(slice(0, 11)))
    assert [piece.where[0] for piece in pieces] == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 11)]
    torch.testing.assert_close(torch.cat([piece.values for piece in pieces], 1), whole, rtol=0, atol=0)


def test_logits_of_the_same_shape_are_not_copied():
    logits = torch.zeros(2, 3, 4, 5)
    (slab,) = resampled(logits, (3, 4, 5), (1, 1, 1), (1, 1, 1), BY_SPACING).slabs(slice(0, 3))
    assert slab.values.data_ptr() == logits.data_ptr()


# --- against nnU-Net ---


@pytest.mark.parametrize(
    ("before", "after", "spacing_mm", "new_spacing_mm"),
    [
        pytest.param((9, 10, 11), (14, 17, 30), (1, 1, 1), (0.7, 0.6, 0.4), id="larger"),
        pytest.param((20, 21, 22), (7, 9, 13), (1, 1, 1), (2.8, 2.3, 1.7), id="smaller"),
        pytest.param((5, 20, 21), (8, 33, 40), (8, 1, 1), (5, 0.6, 0.5), id="thick slices, more of them"),
        pytest.param((11, 20, 21), (4, 15, 40), (2, 1, 1), (5.5, 1.3, 0.5), id="thick slices of the image, fewer"),
        pytest.param((20, 5, 21), (33, 5, 40), (1, 8, 1), (0.6, 8, 0.5), id="thick along the second axis"),
        pytest.param((20, 21, 5), (33, 30, 7), (1, 1, 8), (0.6, 0.7, 5.7), id="thick along the third axis"),
        pytest.param((5, 20, 21), (8, 33, 40), (8, 8, 1), (5, 5, 0.5), id="two coarse axes are not separated"),
        pytest.param((1, 20, 21), (1, 33, 40), (999, 1, 1), (999, 0.6, 0.5), id="a 2D image"),
    ],
)
@pytest.mark.parametrize(
    "decided_by",
    [
        {"force_separate_z": None},
        {"force_separate_z": False},
        {"force_separate_z": True},
        {"force_separate_z": None, "separate_z_anisotropy_threshold": 9},
        {},  # plans of older versions of nnU-Net
    ],
    ids=["the spacing", "never", "always", "a threshold", "nnU-Net's default"],
)
def test_it_is_nnunets_resampling_to_rounding(before, after, spacing_mm, new_spacing_mm, decided_by):
    logits = torch.randn((3, *before), generator=torch.Generator().manual_seed(0)) * 10
    settings = {"is_seg": False, "order": 1, "order_z": 0, **decided_by}
    stock = resample_data_or_seg_to_shape(logits.numpy().copy(), after, spacing_mm, new_spacing_mm, **settings)
    ours = resampled_whole(logits, after, spacing_mm, new_spacing_mm, settings=settings)
    np.testing.assert_allclose(ours, stock, atol=2e-4)
