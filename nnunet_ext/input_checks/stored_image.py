"""The content of one image file as stored, before one of nnU-Net's readers repairs or hides anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.input_checks.findings import Finding, UnreadableFile
from nnunet_ext.machine.available_memory import available_memory_bytes

_READER_BYTES_PER_VOXEL = 4


@dataclass
class StoredImage:
    """The content of one file. Unknown attributes keep their defaults, which pass every check.

    Attributes:
        path: The file.
        file_ending: File ending of the dataset, in lower case.
        reader: Name of nnU-Net's class that will read it, for example "SimpleITKIO"; "" when unknown.
        is_segmentation: True for the segmentation of the previous stage of a cascade.
        damage: Why the file could not be read; everything below is then unknown.
        dimensions: Number of axes that the reader sees; the channels of a colour picture are not an axis.
        shape: Voxels along each spatial axis, in the order (z, y, x) or (y, x).
        channels: Channels in this file.
        components: Numbers stored for one voxel: 3 for RGB or a vector, 2 for a complex number.
        spacing_mm: Distance between voxel centres in the order (x, y[, z]); in mm, or in the file's own unit.
        origin_mm: Position of the first voxel.
        direction: Direction cosines, one column for each spatial axis (x, y[, z]).
        stored_bytes: Bytes of voxel data in the file, after decompression.
        announced_bytes: Bytes of voxel data that the header specifies.
        values: Voxels as stored, (channels, *shape).
        blank_value: The value of all voxels of all channels, if they have only one.
        slope: A voxel's value is slope * stored + intercept.
        intercept: See `slope`.
    """

    path: Path
    file_ending: str
    reader: str = ""
    is_segmentation: bool = False
    damage: Finding | None = None
    dimensions: int | None = None
    shape: tuple[int, ...] = ()
    channels: int = 1
    components: int = 1
    spacing_mm: tuple[float, ...] = ()
    origin_mm: tuple[float, ...] = ()
    direction: NDArray[np.float64] | None = None
    stored_bytes: int | None = None
    announced_bytes: int | None = None
    values: NDArray | None = None
    blank_value: float | None = None
    slope: float = 1.0
    intercept: float = 0.0

    def require_memory(self, dtype: np.dtype) -> None:
        """Refuses voxels that do not fit into memory as stored and as the 32-bit floats that nnU-Net's readers make.

        Raises:
            UnreadableFile: More memory is needed than this machine has available, where that is known.
        """
        count, available = self.channels * math.prod(self.shape), available_memory_bytes()
        needed = count * (dtype.itemsize + _READER_BYTES_PER_VOXEL)
        if available is not None and needed > available:
            found = f"a header that specifies {count} voxels, which need {needed / 2**30:.1f} GiB"
            remedy = "Use a machine with more memory, or crop the image; if it is small, its header is wrong."
            raise UnreadableFile(found, f"at most {available / 2**30:.1f} GiB, the available memory", remedy)

    def take_voxels(self, data: bytes | bytearray, offset: int, dtype: np.dtype) -> None:
        """Measures the voxel data from `offset` on and, if nothing is missing, keeps it as `values`."""
        count = self.channels * math.prod(self.shape)
        self.stored_bytes = max(len(data) - offset, 0)
        self.announced_bytes = count * dtype.itemsize
        if self.components == 1 and 0 < self.announced_bytes <= self.stored_bytes:
            flat = np.frombuffer(data, dtype=dtype, count=count, offset=offset)
            self.values = flat.reshape(self.channels, *self.shape)  # (channels, [z,] y, x): x is fastest


def flat(direction: NDArray[np.float64] | None) -> tuple[float, ...]:
    """The numbers of a matrix, row by row; none of None."""
    return () if direction is None else tuple(direction.ravel().tolist())


def in_words(numbers: Sequence[float]) -> str:
    """The numbers in brackets, as a message shows them."""
    # + 0.0 turns -0, which ITK often returns, into 0
    return "(" + ", ".join(f"{number + 0.0:.6g}" for number in numbers) + ")"
