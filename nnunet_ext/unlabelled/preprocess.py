"""One scan through filters, checks and nnU-Net's preprocessor, complete or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.files.atomic import PARTIAL_PREFIX
from nnunet_ext.input_checks import check_case
from nnunet_ext.options.pretraining import ScanFilter
from nnunet_ext.prediction_folder.cases import Case
from nnunet_ext.unlabelled.scans import Dropped, Geometry, filtered, geometry_of, mismatched

PARTS = (".b2nd", "_seg.b2nd", ".pkl")  # of a preprocessed case; the last is moved last and marks it as complete
LABELS_OF_MASK = {"labels": {"background": 0, "removed": 1}, "file_ending": ""}
FAILURES = (ValueError, RuntimeError, OSError, ArithmeticError, LookupError, AssertionError, TypeError)


@dataclass(frozen=True)
class Preparation:
    """What all scans of a dataset are prepared with.

    Attributes:
        folder: of the preprocessed cases.
        plans: nnU-Net's plans.
        configuration: of the plans.
        channels: of a scan.
        file_ending: of the scans.
        limits: which scans are left out.
        masks: file that is above 0 where a scan was made anonymous, by the name of the scan.
    """

    folder: Path
    plans: dict[str, Any]
    configuration: str
    channels: int
    file_ending: str
    limits: ScanFilter
    masks: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class PreparedScan:
    """What became of a scan.

    Attributes:
        scan: its name and files.
        geometry: from its header; None if that cannot be read.
        dropped: why it is left out; None if it is in the dataset.
    """

    scan: Case
    geometry: Geometry | None
    dropped: Dropped | None


def prepare_scan(scan: Case, preparation: Preparation) -> PreparedScan:
    """Preprocesses a scan that passes filters and checks, unless it is there already; removes one that fails them."""
    found = geometry_of(scan)
    if isinstance(found, Dropped):
        remove_case(preparation.folder, scan.name)
        return PreparedScan(scan, None, found)
    dropped = filtered(scan, found, preparation.limits)
    if dropped is None and scan.name in preparation.masks:
        dropped = mismatched(preparation.masks[scan.name], found)
    mask = preparation.masks.get(scan.name)
    if dropped is None and not is_complete(preparation.folder, scan.name, [*scan.files, *([mask] if mask else [])]):
        dropped = damaged(scan, preparation) or preprocess(scan, preparation)
    if dropped is not None:
        remove_case(preparation.folder, scan.name)
    return PreparedScan(scan, found, dropped)


def is_complete(folder: Path, name: str, sources: Sequence[Path] = ()) -> bool:
    """Whether a case was preprocessed, and none of the files that it is made of has changed since."""
    files = [folder / f"{name}{ending}" for ending in PARTS]
    if not all(file.is_file() for file in files):
        return False
    made = files[-1].stat().st_mtime
    return all(source.stat().st_mtime <= made for source in sources)


def remove_case(folder: Path, name: str) -> None:
    """Removes a preprocessed case, the mark of completeness first."""
    for ending in reversed(PARTS):
        (folder / f"{name}{ending}").unlink(missing_ok=True)


def damaged(scan: Case, preparation: Preparation) -> Dropped | None:
    """What `nnunet_ext check` finds in the files, or None."""
    findings = check_case(
        scan.files,
        file_ending=preparation.file_ending,
        channels=preparation.channels,
        reader=preparation.plans["image_reader_writer"],
    )
    return Dropped("damaged", "; ".join(map(str, findings))) if findings else None


def preprocess(scan: Case, preparation: Preparation) -> Dropped | None:
    """Writes a case as nnU-Net's preprocessor does; returns why that failed, or None."""
    plans = PlansManager(preparation.plans)
    configuration = plans.get_configuration(preparation.configuration)
    # of this configuration: two may be prepared at a time
    partial = preparation.folder.parent / f"{PARTIAL_PREFIX}{preparation.folder.name}_{scan.name}"
    shutil.rmtree(partial, ignore_errors=True)  # of a killed run
    partial.mkdir(parents=True)
    try:
        mask = preparation.masks.get(scan.name)
        image, outside, properties = configuration.preprocessor_class(verbose=False).run_case(
            [str(file) for file in scan.files], str(mask) if mask else None, plans, configuration, LABELS_OF_MASK
        )
        properties["class_locations"] = {}  # nnU-Net's loader asks for them
        save(image, outside, properties, partial / scan.name, configuration.patch_size)
        for ending in PARTS:
            (partial / f"{scan.name}{ending}").replace(preparation.folder / f"{scan.name}{ending}")
    except FAILURES as error:  # one scan must not end the preparation of thousands
        return Dropped("not preprocessed", f"{type(error).__name__}: {error}")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return None


def save(image: np.ndarray, outside: np.ndarray, properties: dict[str, Any], path: Path, patch: list[int]) -> None:
    """Writes image (channels, z, y, x) and labels (1, z, y, x): above 0 where removed, -1 outside of the image."""
    image, outside = image.astype(np.float32, copy=False), outside.astype(np.int16, copy=False)
    blocks, chunks = comp_blosc2_params(image.shape, tuple(patch), image.itemsize)
    blocks_of_mask, chunks_of_mask = comp_blosc2_params(outside.shape, tuple(patch), outside.itemsize)
    nnUNetDatasetBlosc2.save_case(
        image,
        outside,
        properties,
        str(path),
        chunks=chunks,
        blocks=blocks,
        chunks_seg=chunks_of_mask,
        blocks_seg=blocks_of_mask,
    )
