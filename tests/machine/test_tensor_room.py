"""Tensors in temporary files keep their values when their pages are released, and vanish with them."""

from __future__ import annotations

import gc
import mmap
import sys
from pathlib import Path

import pytest
import torch

from nnunet_ext.machine.available_memory import resident_bytes
from nnunet_ext.machine.tensor_room import IN_MEMORY, OnDisk, free_disk_bytes

CPU = torch.device("cpu")
MIB = 2**20


@pytest.mark.parametrize("room", [IN_MEMORY, OnDisk()])
def test_a_new_tensor_is_zero_and_keeps_what_is_written(room):
    values = room.zeros((3, 4, 5), CPU)
    assert values.dtype == torch.float32
    assert not values.any()
    values[1] = 7
    room.release()
    assert values.sum() == 7 * 20


@pytest.mark.skipif(
    not (sys.platform.startswith("linux") and hasattr(mmap, "MADV_DONTNEED")), reason="pages are dropped on Linux"
)
def test_released_pages_leave_the_process():
    """64 MiB are resident once they were written, and no longer after the release."""
    room = OnDisk()
    before = resident_bytes()
    values = room.zeros((16, MIB), CPU)
    values += 1
    assert resident_bytes() - before > 48 * MIB
    room.release()
    assert resident_bytes() - before < 16 * MIB
    assert (values == 1).all()


def test_the_space_is_free_again_with_the_last_tensor(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    values = OnDisk().zeros((4, MIB), CPU)
    part = values[1:3]
    del values
    part += 1
    assert part.sum() == 2 * MIB
    assert list(Path(tmp_path).iterdir()) == []  # the files have no name
    del part
    gc.collect()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no tmpfs")
def test_a_folder_in_main_memory_has_no_room(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/dev/shm")
    kinds = {line.split()[1]: line.split()[2] for line in Path("/proc/self/mounts").read_text().splitlines()}
    if kinds.get("/dev/shm") != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs here")
    assert free_disk_bytes() == 0
