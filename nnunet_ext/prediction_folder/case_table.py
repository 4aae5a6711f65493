"""The table `cases.csv`: one row per case, complete on disk after each case, even with several writing processes."""

from __future__ import annotations

import csv
import io
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from nnunet_ext.files.atomic import PARTIAL_PREFIX, atomic_path

Rows = dict[str, dict[str, str]]

TABLE_NAME = "cases.csv"


class CaseTable:
    """The rows of one prediction run, by case.

    A single process writes `cases.csv` after each case. One of several processes that share a folder
    (`num_parts > 1`) writes `cases_part<id>of<n>.csv` instead, which holds what this process computed in this run,
    and `finish` brings the rows of all parts together in `cases.csv`.

    Args:
        folder: The prediction folder; created if missing.
        part_id: Which part of the cases this process predicts, from 0.
        num_parts: How many processes share the folder.
        keep_existing: True keeps the rows of earlier runs and replaces those of cases that are predicted again; False
            starts over.

    Raises:
        ValueError: `part_id` is not one of the parts.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        part_id: int = 0,
        num_parts: int = 1,
        keep_existing: bool,
    ) -> None:
        if not 0 <= part_id < num_parts:
            raise ValueError(
                f"part_id must be 0 or more and smaller than num_parts; found part_id {part_id} with num_parts "
                f"{num_parts}. With 3 parts use 0, 1 and 2."
            )
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows: Rows = {}
        self._alone = num_parts == 1
        self._file = self.folder / (TABLE_NAME if self._alone else f"cases_part{part_id}of{num_parts}.csv")
        if keep_existing:
            _merge_parts(self.folder)
        # From here on the rows of earlier runs are in cases.csv, or unwanted.
        for stale in _part_files(self.folder) if self._alone else [self._file]:
            stale.unlink(missing_ok=True)
        if keep_existing and self._alone:
            self.rows = _by_case(_read_if_there(self._file))

    def add(self, row: Mapping[str, object]) -> None:
        """Adds a case, or replaces its row, and writes the file.

        Args:
            row: Column names to values; `case` is required. Floats keep 6 significant digits, NaN and None become
                empty cells, `flags` is a list of words.

        Raises:
            ValueError: The row names no case.
        """
        case = row.get("case")
        if not isinstance(case, str) or not case:
            raise ValueError(f"A row needs the name of its case in the column 'case'; found {case!r}.")
        self.rows[case] = {column: _cell(value) for column, value in row.items()}
        _write_rows(self.rows, self._file)

    def discard(self, case: str) -> None:
        """Removes a case's row, even one that could not be written; does nothing if there is none."""
        if self.rows.pop(case, None) is not None:
            with suppress(OSError):  # the case's own error is reported, and may also prevent this
                _write_rows(self.rows, self._file)

    def arrange(self, cases: Sequence[str]) -> None:
        """Leaves the table as if these cases had been added in this order, on which the order of columns depends."""
        order = {case: position for position, case in enumerate(cases)}
        self.rows = dict(sorted(self.rows.items(), key=lambda item: order.get(item[0], -1)))

    def finish(self) -> None:
        """Writes `cases.csv`; with several parts it holds the rows of all parts so far.

        Parts may finish in any order and at the same time: after the last one has finished, the rows of all are
        there.
        """
        if self._alone:
            _write_rows(self.rows, self._file)
        else:
            _merge_parts(self.folder)


def read_cases(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Reads a table of cases: one dict per row, column name to the text of the cell.

    Returns:
        The rows in the order of the file; an empty list if there are none.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file has no column `case`.
    """
    # utf-8-sig: a spreadsheet program that saved the table may have put a byte order mark first
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "case" not in (reader.fieldnames or ()):
            raise ValueError(
                f"A table of cases must have a column 'case'; {path} has the columns {reader.fieldnames or []}. "
                "Delete or rename the file and predict again."
            )
        return list(reader)


def recorded_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of a folder's `cases.csv`; none if it does not exist."""
    return _read_if_there(folder / TABLE_NAME)


def write_text_shared(text: str, path: str | os.PathLike[str]) -> None:
    """Writes a UTF-8 file atomically where several processes may write the same file at the same time.

    The last one to write wins, with its complete text.
    """
    final = Path(path)
    # atomic_path alone would give all processes the same temporary name
    with tempfile.TemporaryDirectory(prefix=PARTIAL_PREFIX, dir=final.parent) as own_folder:
        own = Path(own_folder) / final.name
        with atomic_path(own) as temporary:
            temporary.write_bytes(text.encode("utf-8"))
        own.replace(final)


def _merge_parts(folder: Path) -> None:
    """Writes the rows of `cases.csv` and of all part files to `cases.csv`; without any, a table without rows."""
    table = folder / TABLE_NAME
    while True:
        # Part files first: a process that removes its part file has moved the rows to cases.csv before.
        parts = [row for part in _part_files(folder) for row in _read_if_there(part)]
        text = _as_csv(_by_case([*_read_if_there(table), *parts]))
        # Another process may have merged in between, without the latest rows: finish only when nothing is missing.
        if table.exists() and table.read_bytes() == text.encode("utf-8"):
            return
        write_text_shared(text, table)


def _part_files(folder: Path) -> list[Path]:
    """The part files, the one written last at the end, so that its rows replace older ones of the same case."""
    written = []
    for path in folder.glob("cases_part*of*.csv"):
        try:
            written.append((path.stat().st_mtime_ns, path))
        except FileNotFoundError:  # its process has just started over
            continue
    return [path for _, path in sorted(written)]


def _read_if_there(path: Path) -> list[dict[str, str]]:
    try:
        return read_cases(path)
    except FileNotFoundError:
        return []


def _by_case(rows: Iterable[dict[str, str]]) -> Rows:
    return {row["case"]: row for row in rows}


def _write_rows(rows: Rows, path: Path) -> None:
    write_text_shared(_as_csv(rows), path)


def _as_csv(rows: Rows) -> str:
    seen = dict.fromkeys(column for row in rows.values() for column in row)
    middle = [column for column in seen if column not in ("case", "flags")]
    columns = ["case", *middle, *(["flags"] if "flags" in seen else [])]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[case] for case in sorted(rows))
    return text.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, (float, np.floating)):
        return "" if math.isnan(value) else f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ";".join(str(word) for word in value)
    return str(value)
