"""Slabs are a volume in pieces: together they are the whole, whatever its axes are."""

import threading

import numpy as np
import pytest
import torch

from nnunet_ext.inference.accumulation import slabs
from nnunet_ext.inference.accumulation.slabs import (
    Slab,
    TransposedVolume,
    WholeVolume,
    across,
    assembled,
    for_each_slab,
    pieces,
)

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


def slabs_of(volume: torch.Tensor) -> list[Slab]:
    return list(WholeVolume(volume).slabs(slice(0, volume.shape[1])))


def test_a_slab_holds_as_many_slices_as_fit_and_at_least_one():
    """On a CPU 2^20 values: of slices of 300000 values 3, of larger ones still one; on a GPU 2^27 values."""
    ten = slice(10, 20)
    assert list(pieces(ten, 300_000, CPU)) == [slice(10, 13), slice(13, 16), slice(16, 19), slice(19, 20)]
    assert list(pieces(ten, (1 << 20) + 1, CPU)) == [slice(start, start + 1) for start in range(10, 20)]
    assert list(pieces(ten, 0, CPU)) == [ten]
    assert list(pieces(ten, 1 << 24, CUDA)) == [slice(10, 18), slice(18, 20)]


def test_slices_across_an_axis_span_the_other_axes():
    assert across(1, slice(2, 3), (4, 5, 6)) == where((0, 4), (2, 3), (0, 6))


def test_slabs_follow_each_other_along_the_first_axis(small_slabs):
    """2 classes of 4 x 3 voxels make 24 values per slice: 2 slices per slab, and one is left."""
    volume = counted(2, 5, 4, 3)
    found = slabs_of(volume)
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
    turned = TransposedVolume(WholeVolume(volume), axes)
    found = list(turned.slabs(slice(0, 5)))
    assert len(found) == 3
    for slab in found:
        np.testing.assert_array_equal(slab.values, transposed[(slice(None), *slab.where)])
    np.testing.assert_array_equal(assembled(turned, transposed.shape), transposed)


def test_an_assembled_volume_is_in_single_precision():
    volume = assembled(WholeVolume(counted(1, 2, 2).half()), (1, 2, 2))
    assert volume.dtype == torch.float32
    assert volume.tolist() == [[[0, 1], [2, 3]]]


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_divide_the_slices_and_leave_torchs_number_of_threads(small_slabs, threads):
    """5 slices, 2 a slab: 8 threads are more than there are slices."""
    before = torch.get_num_threads()
    times, seen = np.zeros((5, 4, 3), int), []
    try:
        torch.set_num_threads(threads)

        def count(slab: Slab) -> None:
            times[slab.where] += 1
            seen.append((threading.get_ident(), torch.get_num_threads()))

        for_each_slab(WholeVolume(counted(2, 5, 4, 3)), count)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert times.min() == times.max() == 1
    assert {torch_threads for _, torch_threads in seen} == {1}, "within a thread torch computes alone"


def test_what_fails_in_a_thread_fails_the_call(small_slabs):
    def refuse(slab: Slab) -> None:
        raise ValueError(f"not {slab.where[0].start}")

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ValueError, match="not "):
            for_each_slab(WholeVolume(counted(2, 5, 4, 3)), refuse)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(2, 0, 4, 3), (2, 5, 0, 3), (0, 5, 4, 3)])
def test_an_empty_volume_is_as_empty_afterwards(shape):
    assert assembled(WholeVolume(torch.empty(shape)), shape).shape == shape
