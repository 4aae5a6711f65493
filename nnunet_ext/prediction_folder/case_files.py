"""Writes the results of a prediction into a folder that stays a valid nnU-Net prediction folder.

A case's files are first written to a staging folder inside the output folder and then renamed, the segmentation
last. So a case with a segmentation is a complete case, whenever the process ends.
"""

from __future__ import annotations

import json
import os
import pickle
import platform
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

import nnunet_ext
from nnunet_ext.files.atomic import PARTIAL_PREFIX, atomic_path
from nnunet_ext.options import MapType, OutputOptions
from nnunet_ext.prediction_folder.case_table import write_text_shared
from nnunet_ext.prediction_folder.map_files import TIFF_ENDINGS, map_file_ending, write_map
from nnunet_ext.prediction_folder.packing import write_whole
from nnunet_ext.prediction_folder.provenance import RECORD_NAME

SPACING_ENDING = ".json"  # of the file that nnU-Net puts beside a 3D TIFF


@dataclass(frozen=True)
class CasePrediction:
    """Everything that is written for one case.

    Attributes:
        case: The case's identifier, its file names without channel and ending.
        segmentation: `(z, y, x)`, uint8 or uint16, on the axes of nnU-Net's reader.
        properties: What nnU-Net's reader and preprocessor recorded about the image.
        row: The case's row of `cases.csv`.
        maps: Map name to `(z, y, x)` float32.
        probabilities: `(C, z, y, x)` float32, or None when they were not asked for.
        member_segmentations: Member name to `(z, y, x)`, like `segmentation`.
        covering_mask: `(z, y, x)` uint8, 1 where foreground is possible; None without a calibration with such a mask.
    """

    case: str
    segmentation: np.ndarray
    properties: dict[str, Any]
    row: dict[str, object]
    maps: dict[str, np.ndarray]
    probabilities: np.ndarray | None = None
    member_segmentations: dict[str, np.ndarray] = field(default_factory=dict)
    covering_mask: np.ndarray | None = None


@dataclass(frozen=True)
class ImageFormat:
    """How a dataset stores its images.

    Attributes:
        file_ending: The dataset's `file_ending`.
        reader_writer: The dataset's reader/writer.
    """

    file_ending: str
    reader_writer: BaseReaderWriter


@dataclass(frozen=True)
class CaseContents:
    """Which files and columns every case of a run gets, besides segmentation and row.

    Attributes:
        options: What the user asked for.
        member_names: The members whose own segmentations are written.
        covering_mask: Whether there is a covering mask.
        verdict: Whether the row has a verdict.
    """

    options: OutputOptions
    member_names: Sequence[str] = ()
    covering_mask: bool = False
    verdict: bool = False


class RowKeeper(Protocol):
    """Keeps the row of a case that is written."""

    def add(self, row: Mapping[str, object]) -> None:
        """Adds a case's row, or replaces it."""

    def discard(self, case: str) -> None:
        """Removes a case's row, if there is one."""


def write_case(
    prediction: CasePrediction,
    output_folder: str | os.PathLike[str],
    image_format: ImageFormat,
    table: RowKeeper,
    map_type: MapType = "float32",
) -> None:
    """Writes segmentation, maps, probabilities, member segmentations and table row of a case.

    An earlier prediction of the case stays untouched until all new files are written and checked. Then those of its
    files that are not written again are removed, so that all files of a case come from one prediction.

    Args:
        prediction: The case.
        output_folder: The prediction folder; created if missing.
        image_format: The image format of the dataset.
        table: The table of this run, or what passes the row on to it.
        map_type: See `write_map`.

    Raises:
        OSError: A file could not be written completely. No partial file stays, here as on any other exception.
        RuntimeError: SimpleITK could not write a file.
        ValueError: The reader/writer does not support maps, or two members have the same folder name.
    """
    folder = Path(output_folder)
    remove_leftovers(prediction.case, folder)
    staging = _staging_path(folder, prediction.case)
    staging.mkdir(parents=True)
    try:
        _write_files(prediction, staging, image_format, map_type)
        segmentation = _segmentation_path(folder, prediction.case, image_format.file_ending)
        # An earlier segmentation would mark the case as complete while its other files change.
        segmentation.unlink(missing_ok=True)
        table.add({**prediction.row, "case": prediction.case})
        _remove_outdated(prediction.case, folder, image_format.file_ending, staging)
        _publish(staging, folder, last=segmentation)
    except BaseException:
        if not _segmentation_path(folder, prediction.case, image_format.file_ending).is_file():
            table.discard(prediction.case)
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def remove_leftovers(case: str, output_folder: str | os.PathLike[str]) -> None:
    """Removes the temporary files of the case that a killed run left, if there are any."""
    shutil.rmtree(_staging_path(Path(output_folder), case), ignore_errors=True)


def remove_abandoned(output_folder: str | os.PathLike[str]) -> None:
    """Removes all temporary files of killed runs; only for the one run that holds the whole folder."""
    for path in Path(output_folder).glob(f"{PARTIAL_PREFIX}*"):
        if path.is_dir():  # files of this name belong to other commands, which may be running
            shutil.rmtree(path, ignore_errors=True)


def is_complete(
    case: str, output_folder: str | os.PathLike[str], image_format: ImageFormat, contents: CaseContents
) -> bool:
    """Whether `output_folder` holds all files of a case that a run with these contents would write.

    Args:
        case: The case's identifier.
        output_folder: The prediction folder; it need not exist.
        image_format: The image format of the dataset.
        contents: What every case gets.
    """
    folder, ending, options = Path(output_folder), image_format.file_ending, contents.options
    needed = [_segmentation_path(folder, case, ending)]
    needed += [_map_path(folder, name, case, ending, image_format.reader_writer) for name in options.maps]
    needed += [_member_path(folder, name, case, ending) for name in contents.member_names]
    if options.save_probabilities:
        needed += _probability_paths(folder, case)
    if contents.covering_mask:
        needed.append(_covering_path(folder, case, ending))
    return all(path.is_file() for path in needed)


def write_run_description(
    output_folder: str | os.PathLike[str],
    *,
    arguments: dict[str, Any],
    members: list[dict[str, Any]],
    ensemble: dict[str, Any],
    dataset_json: dict[str, Any],
    plans: dict[str, Any],
) -> None:
    """Writes `predict_args.json`, and `dataset.json` and `plans.json` as nnU-Net's predictor does.

    Args:
        output_folder: The prediction folder; created if missing.
        arguments: The run's arguments. What JSON cannot hold (paths, devices) is written as text.
        members: One dict per member: its name, file, hash and so on.
        ensemble: How the members are put together, see `Provenance.record`.
        dataset_json: The model's `dataset.json`.
        plans: The model's plans.
    """
    folder = Path(output_folder)
    folder.mkdir(parents=True, exist_ok=True)
    description = {"arguments": arguments, "versions": _versions(), "ensemble": ensemble, "members": members}
    # Several parts of one prediction start at the same time and write the same files.
    write_text_shared(json.dumps(description, indent=2, default=_json_value) + "\n", folder / RECORD_NAME)
    write_text_shared(json.dumps(dataset_json, indent=4, default=_json_value), folder / "dataset.json")
    write_text_shared(json.dumps(plans, indent=4, default=_json_value), folder / "plans.json")


def member_folder_name(member: str) -> str:
    """A member's name as a folder name: `fold_0/checkpoint_final` becomes `fold_0__checkpoint_final`.

    Characters that some file systems refuse become underscores.
    """
    return re.sub(r"[^\w.,=+-]", "_", re.sub(r"[/\\]", "__", member))


def _staging_path(folder: Path, case: str) -> Path:
    return folder / f"{PARTIAL_PREFIX}{case}"


def _segmentation_path(folder: Path, case: str, file_ending: str) -> Path:
    return folder / f"{case}{file_ending}"


def _map_path(folder: Path, name: str, case: str, file_ending: str, reader_writer: BaseReaderWriter) -> Path:
    return folder / "maps" / name / f"{case}{map_file_ending(file_ending, reader_writer)}"


def _member_path(folder: Path, member: str, case: str, file_ending: str) -> Path:
    return folder / "members" / member_folder_name(member) / f"{case}{file_ending}"


def _covering_path(folder: Path, case: str, file_ending: str) -> Path:
    return folder / "covering_masks" / f"{case}{file_ending}"


def _probability_paths(folder: Path, case: str) -> tuple[Path, Path]:
    return folder / f"{case}.npz", folder / f"{case}.pkl"


def _write_files(prediction: CasePrediction, folder: Path, image_format: ImageFormat, map_type: MapType) -> None:
    file_ending, reader_writer = image_format.file_ending, image_format.reader_writer
    case, properties = prediction.case, prediction.properties
    _check_distinct_folders(prediction.member_segmentations)
    for name, values in prediction.maps.items():
        path = _map_path(folder, name, case, file_ending, reader_writer)
        path.parent.mkdir(parents=True)
        write_map(values, path, properties, reader_writer, map_type)
    for name, segmentation in prediction.member_segmentations.items():
        path = _member_path(folder, name, case, file_ending)
        path.parent.mkdir(parents=True)
        _write_segmentation(segmentation, path, properties, reader_writer)
    if prediction.covering_mask is not None:
        path = _covering_path(folder, case, file_ending)
        path.parent.mkdir(parents=True)
        _write_segmentation(prediction.covering_mask, path, properties, reader_writer)
    if prediction.probabilities is not None:
        npz, pkl = _probability_paths(folder, case)
        np.savez_compressed(npz, probabilities=prediction.probabilities)
        with pkl.open("wb") as file:
            pickle.dump(properties, file)
    path = _segmentation_path(folder, case, file_ending)
    _write_segmentation(prediction.segmentation, path, properties, reader_writer)


def _write_segmentation(
    segmentation: np.ndarray, path: Path, properties: dict[str, Any], reader_writer: BaseReaderWriter
) -> None:
    write_whole(
        lambda file: reader_writer.write_seg(segmentation, str(file), properties), path, voxel_bytes=segmentation.size
    )


def _check_distinct_folders(members: Iterable[str]) -> None:
    owners: dict[str, str] = {}
    for member in members:
        folder = member_folder_name(member)
        if folder in owners:
            raise ValueError(
                f"Each member's segmentations go to a separate folder; {owners[folder]!r} and {member!r} both "
                f"give members/{folder}. Rename one of them, or predict without --save_members."
            )
        owners[folder] = member


def _remove_outdated(case: str, folder: Path, file_ending: str, staging: Path) -> None:
    """Removes the files of an earlier prediction of a case that are not among the staged ones."""
    for path in _files_there(case, folder, file_ending):
        if not (staging / path.relative_to(folder)).exists():
            path.unlink(missing_ok=True)


def _files_there(case: str, folder: Path, file_ending: str) -> list[Path]:
    """The existing files of a case besides its segmentation: maps, members, covering mask, probabilities."""
    names = [f"{case}{ending}" for ending in (file_ending, *TIFF_ENDINGS, SPACING_ENDING)]
    folders = [*(folder / "maps").glob("*"), *(folder / "members").glob("*"), folder / "covering_masks"]
    images = [place / name for place in folders for name in names]
    return [path for path in (*images, *_probability_paths(folder, case)) if path.is_file()]


def _publish(staging: Path, folder: Path, *, last: Path) -> None:
    """Moves the staged files to the output folder, including extra files that a writer created beside its own."""
    moves = [(path, folder / path.relative_to(staging)) for path in staging.rglob("*") if path.is_file()]
    for staged, final in sorted(moves, key=lambda move: (move[1] == last, move[1])):
        final.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(final) as temporary:
            staged.replace(temporary)


def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in ("nnunetv2", "torch", "numpy")}
    return {"nnunet_ext": nnunet_ext.__version__, **libraries, "python": platform.python_version()}


def _json_value(value: object) -> object:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return str(value)
