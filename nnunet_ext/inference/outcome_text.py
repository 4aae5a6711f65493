"""What a run of predictions says at its end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from nnunet_ext.inference.run import RunOutcome

Row = Mapping[str, object]

ATTENTION = ("reject", "review", "", "accept")  # in this order; "" is a case without a verdict
SHOWN_CASES = 3


def closing_lines(outcome: RunOutcome, folder: Path) -> list[str]:
    """The summary of a run, a line per fact; facts about cases are of those that were predicted now.

    Args:
        outcome: of the run.
        folder: that the results are in.
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
    """Flag to the cases that have it, in the order of the rows."""
    found: dict[str, list[str]] = {}
    for case, row in rows.items():
        flags = row.get("flags")
        for flag in flags if isinstance(flags, (list, tuple)) else ():
            found.setdefault(str(flag), []).append(case)
    return found


def attention(row: Row) -> tuple[int, int, float, float]:
    """Sorts the case that a person should look at first to the front: verdict, flags, agreement, entropy."""
    verdict = str(row.get("verdict") or "")
    agreement = number(row.get("pairwise_dice"), otherwise=1.0)  # one member agrees with itself
    return (
        ATTENTION.index(verdict) if verdict in ATTENTION else 0,
        0 if row.get("flags") else 1,
        agreement,
        -number(row.get("foreground_entropy"), otherwise=0.0),
    )


def number(value: object, *, otherwise: float) -> float:
    """A figure of a row; `otherwise` where it is not defined."""
    return float(value) if isinstance(value, (int, float)) and not math.isnan(value) else otherwise
