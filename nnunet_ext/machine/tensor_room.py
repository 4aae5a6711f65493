"""Where large tensors are kept: in main memory, or in a temporary file whose pages the system can drop."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Protocol

import torch

MOST_SPARE = 0.98  # share of the free disk space that is used; the rest is the file system's own


class TensorRoom(Protocol):
    """Makes large tensors."""

    def zeros(self, shape: Sequence[int], device: torch.device) -> torch.Tensor:
        """A new float32 tensor of zeros."""

    def release(self) -> None:
        """Called between steps: what is not in use now need not stay in main memory."""


class InMemory:
    """Tensors in the memory of their device."""

    def zeros(self, shape: Sequence[int], device: torch.device) -> torch.Tensor:
        """See `TensorRoom`."""
        return torch.zeros(tuple(shape), device=device)

    def release(self) -> None:
        """See `TensorRoom`."""


class OnDisk:
    """Tensors in temporary files, which vanish with them, or with the process however it ends; main memory only.

    The files have no name and lie in `tempfile.gettempdir()`: `TMPDIR` chooses another folder. A released tensor
    keeps its values: its pages leave the process and are read again where they are used.
    """

    def __init__(self) -> None:
        self._mapped: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()

    def zeros(self, shape: Sequence[int], device: torch.device) -> torch.Tensor:
        """See `TensorRoom`.

        Raises:
            OSError: if the disk is full.
        """
        size = 4 * prod(shape)
        with tempfile.TemporaryFile(prefix="nnunet_ext_") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # a disk that fills up later would end the process
            else:
                file.truncate(size)
            mapped = mmap.mmap(file.fileno(), size)
        self._mapped.add(mapped)
        return torch.frombuffer(mapped, dtype=torch.float32).reshape(tuple(shape))  # keeps the mapping

    def release(self) -> None:
        """See `TensorRoom`. Only where the system has `madvise`; others drop pages when memory is short."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in list(self._mapped):
                mapped.madvise(mmap.MADV_DONTNEED)


IN_MEMORY = InMemory()


def free_disk_bytes() -> int:
    """Bytes that tensors on disk can take; 0 if the temporary folder is itself in main memory, as a tmpfs is."""
    folder = tempfile.gettempdir()
    if _file_system(Path(folder).resolve()) in ("tmpfs", "ramfs"):
        return 0
    return int(MOST_SPARE * shutil.disk_usage(folder).free)


def _file_system(folder: Path) -> str:
    """The type of the file system that a folder is on; "" if the system does not say, as outside Linux."""
    found = {}
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, place, kind, *_ = line.split(" ")
        found[place] = kind
    return next((found[str(path)] for path in (folder, *folder.parents) if str(path) in found), "")
