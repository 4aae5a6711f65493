"""The geometry of a file as SimpleITK sees it, without reading the voxels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_ext.input_checks.findings import UnreadableFile
from nnunet_ext.input_checks.itk_guard import require_harmless_header
from nnunet_ext.input_checks.stored_image import StoredImage

_VECTORS = (
    sitk.sitkVectorUInt8,
    sitk.sitkVectorInt8,
    sitk.sitkVectorUInt16,
    sitk.sitkVectorInt16,
    sitk.sitkVectorUInt32,
    sitk.sitkVectorInt32,
    sitk.sitkVectorUInt64,
    sitk.sitkVectorInt64,
    sitk.sitkVectorFloat32,
    sitk.sitkVectorFloat64,
)


@dataclass(frozen=True)
class ItkHeader:
    """Axes in the order of ITK: (x, y[, z[, t]])."""

    size: tuple[int, ...]
    components: int
    pixel_id: int
    spacing_mm: tuple[float, ...]
    origin_mm: tuple[float, ...]
    direction: NDArray[np.float64]

    @property
    def is_vector(self) -> bool:
        """Whether each voxel is a vector, even of one number, so that the array has one more axis."""
        return self.pixel_id in _VECTORS

    def give_geometry_to(self, image: StoredImage) -> None:
        """Sets spacing, origin and direction of the spatial axes of `image`."""
        axes = min(len(self.size), 3)
        image.spacing_mm = self.spacing_mm[:axes]
        image.origin_mm = self.origin_mm[:axes]
        image.direction = self.direction[:axes, :axes]  # (axes, axes), without the channel axis of a 4D file


def itk_message(error: RuntimeError) -> str:
    """The last line of an ITK exception, which is the one that says what happened."""
    return str(error).strip().splitlines()[-1].split("ERROR: ")[-1].strip()


def numbers_per_voxel(path: Path, reader: str) -> int:
    """How many numbers a readable file stores for one voxel; 1 for readers that refuse more by themselves.

    Args:
        path: the file.
        reader: name of nnU-Net's class that reads it. SimpleITKIO mistakes vectors for one more axis.
    """
    if not reader.startswith("SimpleITK"):
        return 1
    try:
        return read_itk_header(path).components
    except UnreadableFile:
        return 1


def read_itk_header(path: Path) -> ItkHeader:
    """Reads the header with SimpleITK.

    Raises:
        UnreadableFile: SimpleITK refuses the header, for example because its directions are not orthogonal; or must
            not see it, see `require_harmless_header`.
    """
    require_harmless_header(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        found = f"a header that SimpleITK refuses ({itk_message(error)})"
        remedy = "Convert the image again, or resample it to a grid with orthogonal axes if that is what is refused."
        raise UnreadableFile(found, "a header that SimpleITK reads", remedy) from error
    axes = reader.GetDimension()
    return ItkHeader(
        size=tuple(reader.GetSize()),
        components=reader.GetNumberOfComponents(),
        pixel_id=reader.GetPixelIDValue(),
        spacing_mm=tuple(reader.GetSpacing()),
        origin_mm=tuple(reader.GetOrigin()),
        direction=np.array(reader.GetDirection(), dtype=np.float64).reshape(axes, axes),
    )
