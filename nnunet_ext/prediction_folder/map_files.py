"""Uncertainty maps as image files with the geometry of nnU-Net's segmentations.

nnU-Net's reader/writers cast what they write to integers, so each of them has a counterpart here. Maps are float32
unless a smaller type is asked for.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
import tifffile
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_ext.options import MAP_TYPES, MapType, require_choice
from nnunet_ext.prediction_folder.packing import write_whole

TIFF_ENDINGS = (".tif", ".tiff")
NIFTI_ENDINGS = (".nii", ".nii.gz")
NIFTI_HEADER_BYTES = 348
SLOPE_OFFSET = 112  # of scl_slope in a NIfTI-1 header; scl_inter follows


MapWriter = Callable[[np.ndarray, Path, dict[str, Any]], None]

LARGEST_UINT8 = 255


def write_map(
    values: np.ndarray,
    path: str | os.PathLike[str],
    properties: dict[str, Any],
    reader_writer: BaseReaderWriter,
    map_type: MapType = "float32",
) -> None:
    """Writes a map where `reader_writer.write_seg` would put a segmentation of the same case.

    Spacing, origin, direction or affine, and orientation are those of the segmentation. A 2D image, `(1, y, x)`,
    becomes a 2D file. A `Tiff3DIO` dataset gets `NAME.json` with the spacing beside `NAME.tif`, as in nnU-Net.

    Args:
        values: `(z, y, x)`, any real type, on the axes of nnU-Net's reader.
        path: The file to write; its ending is that of `map_file_ending`.
        properties: What the reader recorded about the image.
        reader_writer: The dataset's reader/writer.
        map_type: "float32"; "float16", which rounds to half precision and is stored as float32, because no image
            format has half precision, but compresses better; or "uint8", which rounds to multiples of 1/255 and
            stores the numerators with that slope, so that every NIfTI reader returns values in [0, 1].

    Raises:
        ValueError: The reader/writer is unknown, `values` is not three-dimensional, or uint8 is asked for in a
            format other than NIfTI.
        OSError: The file could not be written completely.
    """
    writer = _map_writer(reader_writer)
    require_map_type(map_type, Path(path).name)
    if values.ndim != 3:
        raise ValueError(
            f"A map must have the axes (z, y, x), or (1, y, x) for a 2D image; found the shape {values.shape}. "
            "Pass one map of one case."
        )
    stored = numerators_of_255(values) if map_type == "uint8" else rounded(values, map_type)

    def write(file: Path) -> None:
        writer(stored, file, properties)
        if map_type == "uint8":
            store_slope(file, 1 / LARGEST_UINT8)

    write_whole(write, Path(path), voxel_bytes=stored.nbytes)


def require_map_type(map_type: MapType, file_name: str) -> None:
    """Refuses an unknown type, and uint8 in a format that cannot store its scale."""
    require_choice("The type of the maps", map_type, MAP_TYPES)
    if map_type == "uint8" and not file_name.lower().endswith(NIFTI_ENDINGS):
        raise ValueError(
            f"uint8 maps need a format that stores their scale, which only NIfTI does; found {file_name}. "
            "Use --map-dtype float16."
        )


def numerators_of_255(values: np.ndarray) -> np.ndarray:
    """round(255 * value), uint8; values outside [0, 1] become 0 or 255."""
    return np.rint(np.clip(values, 0, 1) * LARGEST_UINT8).astype(np.uint8)


def rounded(values: np.ndarray, map_type: MapType) -> np.ndarray:
    """The values as float32; for "float16" rounded to half precision first."""
    rounded_values = values.astype(np.float16) if map_type == "float16" else values
    return np.ascontiguousarray(rounded_values, dtype=np.float32)


def store_slope(path: Path, slope: float) -> None:
    """Sets the slope of an uncompressed NIfTI file, which the writers cannot do."""
    with path.open("r+b") as file:
        byte_order = "<" if struct.unpack("<i", file.read(4))[0] == NIFTI_HEADER_BYTES else ">"
        file.seek(SLOPE_OFFSET)
        file.write(struct.pack(f"{byte_order}ff", slope, 0.0))  # scl_slope, scl_inter


def map_file_ending(file_ending: str, reader_writer: BaseReaderWriter) -> str:
    """The file ending of a dataset's maps: the dataset's own, or `.tif` where that format cannot store floats.

    Args:
        file_ending: The dataset's `file_ending`, such as `.nii.gz` or `.png`.
        reader_writer: The dataset's reader/writer.

    Raises:
        ValueError: The reader/writer is unknown.
    """
    _map_writer(reader_writer)
    if isinstance(reader_writer, NaturalImage2DIO) and file_ending.lower() not in TIFF_ENDINGS:
        return ".tif"
    return file_ending


def _write_simpleitk(values: np.ndarray, path: Path, properties: dict[str, Any]) -> None:
    sitk.WriteImage(_simpleitk_image(values, properties), str(path), True)


def _write_simpleitk_reoriented(values: np.ndarray, path: Path, properties: dict[str, Any]) -> None:
    image = sitk.DICOMOrient(_simpleitk_image(values, properties), properties["sitk_stuff"]["original_orientation"])
    sitk.WriteImage(image, str(path), True)


def _simpleitk_image(values: np.ndarray, properties: dict[str, Any]) -> sitk.Image:
    geometry = properties["sitk_stuff"]
    dimensions = len(geometry["spacing"])
    if dimensions not in (2, 3):
        raise ValueError(
            f"A segmentation or map needs the geometry of a 2D or 3D image; this case's image has {dimensions} "
            "dimensions. Store each channel as a file of its own (CASE_0000, CASE_0001, ...)."
        )
    image = sitk.GetImageFromArray(values[0] if dimensions == 2 else values)
    image.SetSpacing(geometry["spacing"])
    image.SetOrigin(geometry["origin"])
    image.SetDirection(geometry["direction"])
    return image


def _write_nibabel(values: np.ndarray, path: Path, properties: dict[str, Any]) -> None:
    affine = properties["nibabel_stuff"]["original_affine"]
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), affine), path)  # (x, y, z)


def _write_nibabel_reoriented(values: np.ndarray, path: Path, properties: dict[str, Any]) -> None:
    affines = properties["nibabel_stuff"]
    image = nibabel.Nifti1Image(values.transpose(2, 1, 0), affines["reoriented_affine"])  # (x, y, z)
    # As nnU-Net writes the segmentation: where two axes are equally close to one direction, rounding decides, and the
    # orientation of the reoriented affine need not be RAS.
    back_to_original = ornt_transform(axcodes2ornt("RAS"), io_orientation(affines["original_affine"]))
    nibabel.save(image.as_reoriented(back_to_original), path)


def _write_tiff_3d(values: np.ndarray, path: Path, properties: dict[str, Any]) -> None:
    tifffile.imwrite(path, values, photometric="minisblack", compression="zlib")
    spacing = [float(length) for length in properties["spacing"]]
    path.with_suffix(".json").write_text(json.dumps({"spacing": spacing}, indent=4), encoding="utf-8")


def _write_tiff_2d(values: np.ndarray, path: Path, properties: dict[str, Any]) -> None:
    tifffile.imwrite(path, values[0], photometric="minisblack", compression="zlib")


MAP_WRITERS: dict[type[BaseReaderWriter], MapWriter] = {
    SimpleITKIO: _write_simpleitk,
    SimpleITKIOWithReorient: _write_simpleitk_reoriented,
    NibabelIO: _write_nibabel,
    NibabelIOWithReorient: _write_nibabel_reoriented,
    Tiff3DIO: _write_tiff_3d,
    NaturalImage2DIO: _write_tiff_2d,
}
"""The map writer for each of nnU-Net's reader/writers.

A subclass uses the entry of its nearest base class. One whose `write_seg` chooses another geometry than that base
class needs its own entry.
"""


def _map_writer(reader_writer: BaseReaderWriter) -> MapWriter:
    for base in type(reader_writer).__mro__:
        if base in MAP_WRITERS:
            return MAP_WRITERS[base]
    known = ", ".join(known.__name__ for known in MAP_WRITERS)
    raise ValueError(
        f"Maps can be written for the reader/writers {known} and their subclasses; this dataset uses "
        f"{type(reader_writer).__name__}. Predict with --maps none, or add a function for it to MAP_WRITERS in "
        f"{__name__}."
    )
