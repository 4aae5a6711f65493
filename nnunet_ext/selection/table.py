"""The table of chosen units: what is written of each, and how an earlier table is read again."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_ext.selection.units import Box, Choice, Unit, overlap

TABLE_NAME = "selected.csv"


@dataclass(frozen=True)
class Annotated:
    """What needs no annotation any more.

    Attributes:
        cases: whole ones.
        boxes: case to the boxes that earlier tables name.
    """

    cases: frozenset[str] = frozenset()
    boxes: Mapping[str, Sequence[Box]] = field(default_factory=dict)

    def has(self, unit: Unit) -> bool:
        """Whether the unit has a voxel that is annotated."""
        return unit.case in self.cases or any(overlap(unit.box, box) for box in self.boxes.get(unit.case, ()))


def row_of(rank: int, choice: Choice, label_names: Mapping[int, str], files: Mapping[str, str]) -> dict[str, object]:
    """One row.

    Args:
        rank: from 1, in the order in which to annotate.
        choice: what is chosen.
        label_names: label to name.
        files: further columns, of the case's files.
    """
    unit, label = choice.unit, choice.label
    return {
        "rank": rank,
        "case": unit.case,
        "slice": "" if unit.slice is None else unit.slice,
        "box": box_text(unit.box),
        "score": unit.score,
        "label": "" if label is None else label_names.get(label, str(label)),
        **files,
    }


def box_text(box: Box) -> str:
    """Such as "0:12 40:104 16:80": z, y and x, without the voxel behind the last one."""
    return " ".join(f"{start}:{stop}" for start, stop in box)


def boxes_in(file: Path) -> dict[str, list[Box]]:
    """Case to the boxes of a table.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is another table.
    """
    found: dict[str, list[Box]] = {}
    with file.open(newline="", encoding="utf-8-sig") as stream:  # a spreadsheet program may have put a mark first
        for row in csv.DictReader(stream):
            try:
                box = [tuple(int(end) for end in part.split(":")) for part in row["box"].split()]
                found.setdefault(row["case"], []).append(tuple((start, stop) for start, stop in box))
            except (KeyError, AttributeError, ValueError):
                raise ValueError(
                    f"A table of an earlier selection has the columns case and box, such as 0:12 0:256 0:256; {file} "
                    f"has the row {row}. Give the {TABLE_NAME} that select wrote, or names of cases."
                ) from None
    return found
