"""Reads a file of any supported format into a `StoredImage`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from nnunet_ext.input_checks.findings import Finding, UnreadableFile
from nnunet_ext.input_checks.itk_formats import read_itk_format
from nnunet_ext.input_checks.nifti import read_nifti
from nnunet_ext.input_checks.pictures import PICTURE_READER, STACK_READER, read_picture
from nnunet_ext.input_checks.stored_image import StoredImage

# Numbers of axes that each of nnU-Net's readers supports. SimpleITKIO reads a fourth axis as channels, but cannot
# write the segmentation of such an image.
READER_DIMENSIONS = {
    "SimpleITKIO": (2, 3),
    "SimpleITKIOWithReorient": (3,),
    "NibabelIO": (3,),
    "NibabelIOWithReorient": (3,),
    PICTURE_READER: (2,),
    STACK_READER: (3,),
}
# The reader that nnU-Net chooses for a file ending. For .tif it tries the two TIFF readers on a file.
DEFAULT_READERS = {
    ".nii.gz": "SimpleITKIO",
    ".nrrd": "SimpleITKIO",
    ".mha": "SimpleITKIO",
    ".gipl": "SimpleITKIO",
    ".nii": "NibabelIO",
    ".png": PICTURE_READER,
    ".bmp": PICTURE_READER,
    ".tiff": STACK_READER,
    ".tif": "",
}
_FORMATS: dict[str, Callable[[StoredImage], None]] = {
    ".gz": read_nifti,
    ".nii": read_nifti,
    ".nrrd": read_itk_format,
    ".mha": read_itk_format,
    ".gipl": read_itk_format,
    ".png": read_picture,
    ".bmp": read_picture,
    ".tiff": read_picture,
    ".tif": read_picture,
}


def read_image(path: Path, file_ending: str, reader: str | None, is_segmentation: bool = False) -> StoredImage:
    """Reads one file once; an error is recorded in `damage` of the result.

    Args:
        path: The file. If it is absent or does not have the ending, nothing is read.
        file_ending: File ending of the dataset.
        reader: Name of nnU-Net's reader class; None or an unknown name: the default one for the ending.
        is_segmentation: True for the segmentation of the previous stage of a cascade.
    """
    ending = file_ending.lower()
    known = reader if reader in READER_DIMENSIONS else DEFAULT_READERS.get(ending, "")
    blank = partial(StoredImage, path, ending, reader=known or "", is_segmentation=is_segmentation)
    image = blank()
    if not path.is_file() or not path.name.lower().endswith(ending) or ending not in DEFAULT_READERS:
        return image
    try:
        _FORMATS[path.suffix.lower()](image)
    except UnreadableFile as error:
        return blank(damage=Finding(path, error.found, error.expected, error.remedy))
    except OSError as error:
        remedy = "Check the permissions and the disk."
        return blank(damage=Finding(path, f"a file that cannot be opened ({error})", "a readable file", remedy))
    return image
