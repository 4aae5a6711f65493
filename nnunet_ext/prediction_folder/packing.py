"""Writes image files, checks that they are complete, and compresses `.nii.gz` files quickly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from isal import igzip

PACKED = ".nii.gz"
HEADER_BYTES = {".nii": 352, ".gipl": 256}  # of the formats that SimpleITK may truncate without an error
COMPRESSION_LEVEL = 2  # maps get as small as with zlib's highest level in a sixth of the time
BLOCK_BYTES = 1 << 20


def write_whole(write: Callable[[Path], None], path: Path, *, voxel_bytes: int) -> None:
    """Writes an image file; a `.nii.gz` is written uncompressed and then compressed here, which is faster.

    SimpleITK and nibabel compress with zlib, which for a float map takes longer than all computations on it.

    Args:
        write: writes to the path that it is given, which has the same ending or `.nii`.
        path: path of the file.
        voxel_bytes: smallest size of its voxels in bytes, uncompressed.

    Raises:
        OSError: if the file is incomplete: on a full disk SimpleITK only prints a line for some formats.
    """
    if not path.name.lower().endswith(PACKED):
        write(path)
        _require_whole(path, path.name, voxel_bytes)
        return
    unpacked = path.with_name(path.name[: -len(".gz")])
    write(unpacked)
    _require_whole(unpacked, path.name, voxel_bytes)
    with (
        unpacked.open("rb") as source,
        path.open("wb") as target,
        # the file gets neither name nor time: the same image gives the same bytes
        igzip.IGzipFile("", "wb", COMPRESSION_LEVEL, target, mtime=0) as packed,
    ):
        shutil.copyfileobj(source, packed, BLOCK_BYTES)
    unpacked.unlink()


def _require_whole(path: Path, name: str, voxel_bytes: int) -> None:
    header_bytes = HEADER_BYTES.get(path.suffix)
    found = path.stat().st_size
    if header_bytes is not None and found < header_bytes + voxel_bytes:
        raise OSError(
            f"{name} was not written completely: {found} of at least {header_bytes + voxel_bytes} bytes are there. "
            "Check the free space of the disk with the output folder, then continue with --continue_prediction."
        )
