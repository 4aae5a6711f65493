"""The summary that `nnunet_ext predict` shows at its end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from nnunet_ext.inference.run import RunOutcome

Row = Mapping[str, object]

ATTENTION = ("reject", "review", "", "accept")  # most urgent first; "" is a case without a verdict
SHOWN_CASES = 3


def closing_lines(outcome: RunOutcome, folder: Path) -> list[str]:
    """The summary of a run, one fact per line; only cases that this run predicted are described.

    Args:
        outcome: the outcome of the run.
        folder: the output folder.
    """
    before = f", {len(outcome.skipped)} complete before" if outcome.skipped else ""
    lines = [f"{len(outcome.predicted)} predicted{before}, {len(outcome.failed)} failed: {folder}"]
    rows = outcome.rows
    if not rows:
        return lines
    members = sorted({str(row["members"]) for row in rows.values()})
    lines.append(f"  members: {' or '.join(members)} per case")
    for flag, cases in flagged_cases(rows).items():
        more = f" and {len(cases) - SHOWN_CASES} more" if len(cases) > SHOWN_CASES else ""
        lines.append(f"  {flag}: {', '.join(cases[:SHOWN_CASES])}{more}")
    verdicts = Counter(str(row["verdict"]) for row in rows.values() if row.get("verdict"))
    if verdicts:
        lines.append("  verdicts: " + ", ".join(f"{verdicts[word]} {word}" for word in ATTENTION if verdicts[word]))
    first = min(rows, key=lambda case: attention(rows[case]))
    reason = rows[first].get("verdict_reason")
    lines.append(f"  open first: {first}" + (f" ({rows[first]['verdict']}: {reason})" if reason else ""))
    lines.append(f"  table: {folder / 'cases.csv'}")
    return lines


def flagged_cases(rows: Mapping[str, Row]) -> dict[str, list[str]]:
    """Each flag with the names of the cases that carry it, in the order of the rows."""
    found: dict[str, list[str]] = {}
    for case, row in rows.items():
        flags = row.get("flags")
        for flag in flags if isinstance(flags, (list, tuple)) else ():
            found.setdefault(str(flag), []).append(case)
    return found


def attention(row: Row) -> tuple[int, int, float, float, float]:
    """Sort key that puts the case to look at first in front, as the report does.

    By verdict, flags, predicted Dice (a calibrated case without an estimate first), pairwise Dice, then entropy.
    """
    verdict = str(row.get("verdict") or "")
    agreement = number(row.get("pairwise_dice"), otherwise=1.0)  # a single member has no pairwise Dice
    return (
        ATTENTION.index(verdict) if verdict in ATTENTION else 0,
        0 if row.get("flags") else 1,
        number(row.get("predicted_dice"), otherwise=-math.inf if verdict else 1.0),
        agreement,
        -number(row.get("foreground_entropy"), otherwise=0.0),
    )


def number(value: object, *, otherwise: float) -> float:
    """A value of a row as a number; `otherwise` if it is missing or NaN."""
    return float(value) if isinstance(value, (int, float)) and not math.isnan(value) else otherwise
