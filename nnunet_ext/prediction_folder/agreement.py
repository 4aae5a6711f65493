"""Checks that table, files and record of a prediction folder agree, and names the cases that do not."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from nnunet_ext.descriptions import read_description
from nnunet_ext.prediction_folder.case_table import TABLE_NAME, recorded_rows
from nnunet_ext.prediction_folder.cases import segmented_cases
from nnunet_ext.prediction_folder.provenance import RECORD_NAME, Provenance, read_provenance

SHOWN_CASES = 3  # in a message
Row = Mapping[str, str]


class DisagreementError(ValueError):
    """A prediction folder contradicts itself; the message names the cases."""


def require_agreement(folder: Path) -> None:
    """Refuses a folder of `nnunet_ext predict` that contradicts itself, before anything is read from it.

    A folder without `predict_args.json`, such as one of stock nnU-Net, is accepted unchecked.

    Raises:
        DisagreementError: if a row has no segmentation, a segmentation no row, or a row is not from the recorded
            ensemble.
        ValueError: if the record is damaged.
    """
    provenance = read_provenance(folder)
    if provenance is None:
        return
    rows = recorded_rows(folder)
    description = folder / "dataset.json"
    found = other_ensembles(rows, provenance)
    if description.is_file():
        ending = read_description(description, ["file_ending"])["file_ending"]
        found = unmatched(rows, segmented_cases(folder, ending)) + found
    if found:
        raise DisagreementError(
            f"The table, the segmentations and the record of a prediction folder must agree; those of {folder} do "
            f"not: {'; '.join(found)}. If a run is writing the folder, wait until it has ended. Cases that lack a "
            f"file or a row are completed with --continue_prediction; where members or calibration differ, predict "
            f"into another folder."
        )


def unmatched(rows: Sequence[Row], segmented: Collection[str]) -> list[str]:
    """Rows without segmentation and segmentations without row, one phrase for each kind found.

    Args:
        rows: of `cases.csv`.
        segmented: names of the cases that have a segmentation. `CASE_0000` beside a `CASE` with a row is not a case
            but an image: some users predict into the folder of their images.
    """
    tabled = {row["case"] for row in rows}
    images = {name for name in segmented if re.fullmatch(r".+_\d{4}", name) and name[:-5] in tabled}
    without_file, without_row = tabled - set(segmented), set(segmented) - tabled - images
    return [
        *([f"no segmentation of {_listed(without_file)}, which {TABLE_NAME} lists"] if without_file else []),
        *([f"no row in {TABLE_NAME} for the segmentation of {_listed(without_row)}"] if without_row else []),
    ]


def other_ensembles(rows: Sequence[Row], provenance: Provenance) -> list[str]:
    """Rows that are not from the recorded ensemble, by members and verdict, one phrase for each kind found."""
    expected, stages = provenance.members_averaged, provenance.settings.get("stages")
    members = {row["case"]: row["members"] for row in rows if row.get("members")}
    wrong = {case: count for case, count in members.items() if expected is not None and count != str(expected)}
    judged = {row["case"] for row in rows if row.get("verdict")}
    found = []
    if wrong:
        counts = ", ".join(sorted(set(wrong.values())))
        found.append(f"{counts} members for {_listed(wrong)} in {TABLE_NAME}, but {expected} in {RECORD_NAME}")
    if stages is not None and "calibrate" in stages and len(judged) < len(rows):
        unjudged = {row["case"] for row in rows} - judged
        found.append(f"no verdict for {_listed(unjudged)}, but a calibration in {RECORD_NAME}")
    if stages is not None and "calibrate" not in stages and judged:
        found.append(f"a verdict for {_listed(judged)}, but no calibration in {RECORD_NAME}")
    return found


def _listed(cases: Collection[str]) -> str:
    names, more = sorted(cases), len(cases) - SHOWN_CASES
    return ", ".join(names[:SHOWN_CASES]) + (f" and {more} more" if more > 0 else "")
