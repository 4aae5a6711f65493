"""The files around the preprocessed scans: plans, dataset.json, fingerprint, splits, and the table of all scans."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_ext.files.atomic import atomic_path, says, write_json
from nnunet_ext.patients import patient_of
from nnunet_ext.splits import FILE_NAME, Split, splits_by_patient
from nnunet_ext.trainers.pretraining.base import REMOVED_REGIONS
from nnunet_ext.unlabelled.preprocess import PreparedScan

TABLE = "pretraining_scans.csv"
COLUMNS = ("case", "kept", "reason", "explanation", "voxels", "spacing_mm", "field_of_view_mm", "file_kb")
MARK = "nnunet_ext_unlabelled"  # in dataset.json
MOST_FOLDS = 20  # 5 % of the patients are held out
SEED = 12345


def require_own_dataset(
    folder: Path, raw: Path | None, plans: dict[str, Any], *, removed_regions: bool = False
) -> None:
    """Refuses to mix scans into a dataset with labels, or into one that was preprocessed with other plans.

    Args:
        folder: of the preprocessed dataset.
        raw: that of the raw dataset; None if there is no such variable.
        plans: the plans to come.
        removed_regions: whether scans come with masks of what was removed.

    Raises:
        ValueError: if the dataset is another one.
    """
    file = folder / "dataset.json"
    description = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    is_ours = MARK in description
    if (raw is not None and raw.is_dir()) or (folder.is_dir() and any(folder.iterdir()) and not is_ours):
        raise ValueError(
            f"Scans without labels need a dataset of their own; {folder.name} has other data. Choose another -d."
        )
    if is_ours and description.get(REMOVED_REGIONS, False) != removed_regions:
        had = "without" if removed_regions else "with"
        raise ValueError(
            f"All scans of a dataset must be prepared in the same way; those of {folder.name} were {had} --removed. "
            f"Repeat the command with the flags of the first run, or choose another -d."
        )
    file = folder / f"{plans['plans_name']}.json"
    if file.is_file() and not says(file, plans):
        raise ValueError(
            f"All scans of a dataset must be preprocessed with the same plans; {file} has others. Repeat the command "
            f"with the flags of the first run, or choose another -d."
        )


def write_description(
    folder: Path, plans: dict[str, Any], *, channels: int, file_ending: str, removed_regions: bool = False
) -> None:
    """Writes plans, dataset.json and what nnU-Net copies at the start of a training."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset_json = {
        "channel_names": {str(channel): f"channel {channel}" for channel in range(channels)},
        "labels": {"background": 0},
        "numTraining": 0,
        "file_ending": file_ending,
        MARK: True,
    }
    if removed_regions:
        dataset_json[REMOVED_REGIONS] = True
    write_json(dataset_json, folder / "dataset.json")
    write_json({"spacings": [], "shapes_after_crop": []}, folder / "dataset_fingerprint.json")
    write_json(plans, folder / f"{plans['plans_name']}.json")


def splits_of(names: Sequence[str], patients: str | None) -> list[dict[str, list[str]]]:
    """Folds that hold out whole patients, 5 % of them each, at least one.

    Raises:
        ValueError: if there are fewer than two patients, or the pattern does not match a scan.
    """
    by_patient = {name: patient_of(name, patients) for name in names}
    count = len(set(by_patient.values()))
    if count < 2:
        raise ValueError(
            f"The validation loss needs a held-out patient, so at least 2 must pass filters and checks; found "
            f"{count}. {TABLE} says what was dropped and why."
        )
    return splits_by_patient(by_patient, folds=min(MOST_FOLDS, count), seed=SEED)


def write_splits(folder: Path, splits: Sequence[Split], *, continuing: bool) -> None:
    """Writes the splits that a training reads.

    Raises:
        ValueError: if a training is continued whose scans were others: held-out ones could be among those trained on.
    """
    file = folder / FILE_NAME
    if continuing and file.is_file() and json.loads(file.read_text(encoding="utf-8")) != splits:
        raise ValueError(
            f"A continued training must keep its held-out scans; the scans have changed since {file} was written. "
            f"Continue it with `nnunet_ext train --c`, which keeps them, or leave --c out and train again."
        )
    write_json(splits, file)


def write_table(scans: Sequence[PreparedScan], file: Path) -> None:
    """Writes one row per scan: whether it is in the dataset, why not, and its size."""
    with atomic_path(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(map(table_row, scans))


def table_row(prepared: PreparedScan) -> list[str]:
    """The cells of a scan in the order of `COLUMNS`; numbers along (x, y, z)."""
    geometry, dropped = prepared.geometry, prepared.dropped
    size = sum(file.stat().st_size for file in prepared.scan.files) / 1e3
    sizes = [""] * 3
    if geometry is not None:
        columns = (geometry.size, geometry.spacing_mm, geometry.field_of_view_mm)
        sizes = [" x ".join(f"{number:.6g}" for number in column) for column in columns]
    reason, explanation = (dropped.kind, dropped.reason) if dropped else ("", "")
    return [prepared.scan.name, "no" if dropped else "yes", reason, explanation, *sizes, f"{size:.1f}"]


def summary_lines(scans: Sequence[PreparedScan], table: Path) -> list[str]:
    """How many scans are in the dataset, and how many were dropped for which reason."""
    dropped = Counter(scan.dropped.kind for scan in scans if scan.dropped)
    reasons = [f"{count:6}  {kind}" for kind, count in dropped.most_common()]
    kept = len(scans) - dropped.total()
    lines = [f"{kept} of {len(scans)} scans are in the dataset."]
    if reasons:
        lines += ["Dropped:", *reasons]
    return [*lines, f"Each scan, and why it was dropped: {table}"]
