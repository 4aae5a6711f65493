"""Slabs are a volume in pieces: together they are the whole, whatever its axes are."""

import numpy as np
import pytest
import torch

from nnunet_ext.inference import slabs
from nnunet_ext.inference.slabs import Slab, across, assembled, slabs_of, slices_per_slab

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def small_slabs(monkeypatch):
    """60 values a slab."""
    monkeypatch.setattr(slabs, "VALUES_PER_SLAB_CPU", 60)


def counted(*shape: int) -> torch.Tensor:
    """Every value is another one."""
    return torch.arange(np.prod(shape), dtype=torch.float32).reshape(shape)


def where(*bounds: tuple[int, int]) -> tuple[slice, ...]:
    return tuple(slice(*pair) for pair in bounds)


def test_a_slab_holds_as_many_slices_as_fit_and_at_least_one():
    """On a CPU 2^20 values: of slices of 1000 values 1048 (1048576 / 1000 = 1048.6); of larger ones still one."""
    assert slices_per_slab(1000, CPU) == 1048
    assert slices_per_slab(1 << 20, CPU) == 1
    assert slices_per_slab((1 << 20) + 1, CPU) == 1
    assert slices_per_slab(0, CPU) == 1 << 20
    assert slices_per_slab(1 << 20, CUDA) == 128  # 2^27 / 2^20


def test_slices_across_an_axis_span_the_other_axes():
    assert across(1, slice(2, 3), (4, 5, 6)) == where((0, 4), (2, 3), (0, 6))


def test_slabs_follow_each_other_along_the_first_axis(small_slabs):
    """2 classes of 4 x 3 voxels make 24 values a slice: 2 slices a slab, and one is left."""
    volume = counted(2, 5, 4, 3)
    found = list(slabs_of(volume))
    assert [slab.where for slab in found] == [
        where((0, 2), (0, 4), (0, 3)),
        where((2, 4), (0, 4), (0, 3)),
        where((4, 5), (0, 4), (0, 3)),
    ]
    for slab in found:
        np.testing.assert_array_equal(slab.values, volume.numpy()[(slice(None), *slab.where)])


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (3, 1, 50, 50), (1, 200), (2, 7, 9)])
def test_slabs_cover_every_voxel_once(small_slabs, shape):
    times = np.zeros(shape[1:], int)
    for slab in slabs_of(counted(*shape)):
        times[slab.where] += 1
    assert times.min() == times.max() == 1


def test_slabs_are_views_and_not_copies():
    volume = counted(2, 5, 4, 3)
    (slab,) = slabs_of(volume)
    assert slab.values.data_ptr() == volume.data_ptr()


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1), (2, 1, 0)])
def test_a_transposed_slab_is_that_of_the_transposed_volume(small_slabs, axes):
    volume = counted(2, 5, 4, 3)
    transposed = volume.numpy().transpose(0, *(axis + 1 for axis in axes))
    turned = [slab.transposed(axes) for slab in slabs_of(volume)]
    assert len(turned) == 3
    for slab in turned:
        np.testing.assert_array_equal(slab.values, transposed[(slice(None), *slab.where)])
    whole = assembled(turned, transposed.shape, CPU)
    np.testing.assert_array_equal(whole, transposed)


def test_assembled_slabs_are_the_volume_in_single_precision():
    halves = [
        Slab(where((0, 1), (0, 2)), torch.tensor([[[1.0, 2.0]]], dtype=torch.float16)),
        Slab(where((1, 2), (0, 2)), torch.tensor([[[3.0, 4.0]]], dtype=torch.float16)),
    ]
    volume = assembled(halves, (1, 2, 2), CPU)
    assert volume.dtype == torch.float32
    assert volume.tolist() == [[[1, 2], [3, 4]]]


@pytest.mark.parametrize("shape", [(2, 0, 4, 3), (2, 5, 0, 3), (0, 5, 4, 3)])
def test_an_empty_volume_has_no_slabs(shape):
    volume = torch.empty(shape)
    assert list(slabs_of(volume)) == []
    assert assembled(slabs_of(volume), shape, CPU).shape == shape
