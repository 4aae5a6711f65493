"""Image files that are certainly whole, and packed quickly where their name asks for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from isal import igzip

PACKED = ".nii.gz"
HEADER_BYTES = {".nii": 352, ".gipl": 256}  # of the formats that SimpleITK may leave cut without an error
COMPRESSION_LEVEL = 2  # files as small as zlib's at its highest level, of maps in a sixth of the time
BLOCK_BYTES = 1 << 20


def write_whole(write: Callable[[Path], None], path: Path, *, voxel_bytes: int) -> None:
    """Has an image file written; a `.nii.gz` is written unpacked and packed here, which is faster.

    SimpleITK and nibabel pack with zlib, which for a float map takes longer than all computations on it.

    Args:
        write: writes to the path that it gets, which has the same ending or `.nii`.
        path: of the file.
        voxel_bytes: how much its voxels take unpacked, at least.

    Raises:
        OSError: if the file is cut: on a full disk SimpleITK only prints a line for some formats.
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
        # neither name nor time go into the file: the same image gives the same bytes
        igzip.IGzipFile("", "wb", COMPRESSION_LEVEL, target, mtime=0) as packed,
    ):
        shutil.copyfileobj(source, packed, BLOCK_BYTES)
    unpacked.unlink()


def _require_whole(path: Path, name: str, voxel_bytes: int) -> None:
    header_bytes = HEADER_BYTES.get(path.suffix)
    found = path.stat().st_size
    if header_bytes is not None and found < header_bytes + voxel_bytes:
        raise OSError(
            f"{name} was not written whole: {found} of at least {header_bytes + voxel_bytes} bytes are there. "
            "Check the free space of the disk with the output folder, then continue with --continue_prediction."
        )
