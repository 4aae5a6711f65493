"""The cases of load.py: small images, every tenth of them bad in one of several ways."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

EVERY = 10  # which case is bad
SHAPE_XYZ = (26, 22, 3)
_PIXDIM_BYTE = 80  # of the first spacing in a NIfTI header


def write_cases(folder: Path, cases: int) -> set[str]:
    """Writes `case_0000_0000.nii.gz` and so on, and returns the names of the bad ones."""
    folder.mkdir(parents=True)
    bad = set()
    for number in range(cases):
        name = f"case_{number:04d}"
        path = folder / f"{name}_0000.nii.gz"
        path.write_bytes(gzip.compress(_image(number), mtime=0))
        if number % EVERY == 1:
            FAULTS[number // EVERY % len(FAULTS)](path)
            bad.add(name)
    return bad


def _image(seed: int) -> bytes:
    voxels = np.random.default_rng(seed).normal(100, 20, SHAPE_XYZ).astype(np.float32)
    return nibabel.Nifti1Image(voxels, np.diag([1, 1, 8, 1.0])).to_bytes()


def _truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_bytes(b"<html>404 Not Found</html>\n")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def _no_spacing(path: Path) -> None:
    data = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<f", data, _PIXDIM_BYTE, 0.0)
    path.write_bytes(gzip.compress(bytes(data), mtime=0))


def _nan(path: Path) -> None:
    data = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<f", data, len(data) - 4, float("nan"))
    path.write_bytes(gzip.compress(bytes(data), mtime=0))


def _bomb(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(1 << 28), mtime=0))


FAULTS: tuple[Callable[[Path], None], ...] = (_truncate, _empty, _text, _flip, _no_spacing, _nan, _bomb)
