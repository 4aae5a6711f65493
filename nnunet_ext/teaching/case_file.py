"""The file with a teacher's probabilities of one case: complete or absent, and read in parts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import blosc2
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params

from nnunet_ext.files.atomic import atomic_path
from nnunet_ext.teaching.packing import outputs_on_disk, unpacked

ENDING = ".b2nd"  # nnU-Net's own format for preprocessed cases
SUFFIX = "_teacher"


def teacher_folder(preprocessed: Path) -> Path:
    """The folder of the probabilities, beside that of the preprocessed cases, which nnU-Net keeps to itself."""
    return preprocessed.with_name(f"{preprocessed.name}{SUFFIX}")


def case_file(folder: Path, case: str) -> Path:
    """The file of a case."""
    return folder / f"{case}{ENDING}"


def write_packed(array: np.ndarray, file: Path, patch_size: Sequence[int]) -> None:
    """Writes what `packed` returned, in chunks that suit the patches of a training.

    Args:
        array: (channels, z, y, x).
        file: see `case_file`; its folder must exist.
        patch_size: voxels of a patch, of 2 or 3 axes.
    """
    blocks, chunks = comp_blosc2_params(array.shape, tuple(patch_size), array.itemsize)
    with atomic_path(file) as temporary:
        temporary.unlink(missing_ok=True)  # of a killed run; blosc2 does not overwrite
        blosc2.asarray(
            np.ascontiguousarray(array),
            urlpath=str(temporary),
            chunks=chunks,
            blocks=blocks,
            cparams={"codec": blosc2.Codec.LZ4HC, "clevel": 5, "nthreads": 1},
        )


class CaseProbabilities:
    """A teacher's probabilities of a case, (F, z, y, x) in fp32, read from the disk where they are indexed.

    Args:
        file: see `case_file`.
        outputs: of the network, with the background.
        regions: whether the outputs are regions.
    """

    def __init__(self, file: Path, outputs: int, *, regions: bool) -> None:
        mapped = {} if os.name == "nt" else {"mmap_mode": "r"}  # as nnU-Net opens its own
        self.array = blosc2.open(urlpath=str(file), mode="r", dparams={"nthreads": 1}, **mapped)
        self.outputs = outputs
        self.regions = regions
        self.shape = (outputs_on_disk(outputs, regions=regions), *self.array.shape[1:])
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, where: tuple[slice, ...]) -> np.ndarray:
        """A part, given by slices of all four axes; always with all outputs."""
        part = (slice(None), *where[1:])
        return unpacked(self.array[part], self.outputs, regions=self.regions)
