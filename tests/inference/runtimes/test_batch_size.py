"""Batches hold a certain number of voxels, and on a GPU no more than its free memory."""

import logging
from types import SimpleNamespace

import pytest
import torch

from nnunet_ext.inference.runtimes.batch_size import BatchSize, batch_size_for, fitting_batch_size

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MIB = 1 << 20


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of which 900 MiB are free: 700 by the driver and 200 that torch reserved and does not use.

    100 MiB are allocated already; a patch takes `per_patch` more while it runs.
    """
    state = SimpleNamespace(allocated=100 * MIB, reserved=300 * MIB, unreserved=700 * MIB, per_patch=0, peak=None)

    def reset(device):
        state.peak = state.allocated

    def run_patch():
        state.peak = max(state.peak, state.allocated + state.per_patch)

    state.run_patch = run_patch
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: state.allocated)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: state.reserved)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: state.peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (state.unreserved, 80_000 * MIB))
    return state


@pytest.mark.parametrize(
    ("patch_size", "device", "expected"),
    [
        ((16, 16), CPU, 2048),  # 2^19 / 2^8
        ((512, 512), CPU, 2),  # 2^19 / 2^18
        ((600, 600), CPU, 1),  # 524288 / 360000 = 1.46
        ((128, 128, 128), CPU, 1),  # 2^21 voxels are more than 2^19
        ((128, 128, 128), CUDA, 4),  # 2^23 / 2^21
        ((512, 512), CUDA, 32),
    ],
)
def test_a_batch_has_a_certain_number_of_voxels_and_at_least_one_patch(patch_size, device, expected):
    assert batch_size_for(patch_size, device) == BatchSize(expected)


def test_on_a_cpu_no_patch_is_run_to_measure_it():
    def run_patch():
        raise AssertionError("this takes time for nothing")

    assert fitting_batch_size((512, 512), CPU, run_patch) == BatchSize(2)


@pytest.mark.parametrize(
    ("per_patch_mib", "expected"),
    [
        (100, 6),  # 0.7 · 900 / 100 = 6.3
        (209, 3),  # 3.01
        (211, 2),  # 2.99
        (400, 1),  # 1.6
        (2000, 1),  # 0.3: one patch is tried all the same
        (1, 32),  # 630 would fit; the voxels allow 32
        (0, 32),  # nothing could be measured
    ],
)
def test_on_a_gpu_seven_tenths_of_the_free_memory_are_filled(gpu, per_patch_mib, expected):
    gpu.per_patch = per_patch_mib * MIB
    assert fitting_batch_size((512, 512), CUDA, gpu.run_patch) == BatchSize(expected)


def test_an_earlier_peak_is_not_taken_for_the_patch(gpu):
    """0.7 · 900 / 300 = 2.1; with the peak of 60 GiB of something before it would be 1."""
    gpu.peak, gpu.per_patch = 60_000 * MIB, 300 * MIB
    assert fitting_batch_size((512, 512), CUDA, gpu.run_patch) == BatchSize(2)


def test_halving_is_logged_and_ends_at_one_patch(caplog):
    size = BatchSize(5)
    with caplog.at_level(logging.WARNING):
        found = []
        for _ in range(4):
            size.halve()
            found.append(size.patches)
    assert found == [2, 1, 1, 1]
    assert caplog.messages[:2] == [
        "A batch of 5 patches does not fit into memory; continuing with 2.",
        "A batch of 2 patches does not fit into memory; continuing with 1.",
    ]
