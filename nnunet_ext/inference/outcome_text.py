"""The summary that `nnunet_ext predict` shows at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from nnunet_ext.evaluation.attention import URGENCY, Row, flags_of, order_column, worst_first
from nnunet_ext.inference.run import RunOutcome

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
        lines.append("  verdicts: " + ", ".join(f"{verdicts[word]} {word}" for word in URGENCY if verdicts[word]))
    described = [{**row, "case": case} for case, row in rows.items()]
    first = worst_first(described, order_column(described))[0]
    reason = first.get("verdict_reason")
    lines.append(f"  open first: {first['case']}" + (f" ({first['verdict']}: {reason})" if reason else ""))
    lines.append(f"  table: {folder / 'cases.csv'}")
    return lines


def flagged_cases(rows: Mapping[str, Row]) -> dict[str, list[str]]:
    """Each flag with the names of the cases that carry it, in the order of the rows."""
    found: dict[str, list[str]] = {}
    for case, row in rows.items():
        for flag in flags_of(row):
            found.setdefault(flag, []).append(case)
    return found
