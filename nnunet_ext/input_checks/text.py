"""Findings as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_ext.input_checks.findings import Finding

HEADER = ("case", "file", "found, and what to do")


def finding_lines(findings: Mapping[str, Sequence[Finding]], folder: Path) -> list[str]:
    """A table of what is wrong, and a last line that counts the good and the bad cases.

    Args:
        findings: case name to what is wrong with it.
        folder: folder of the images; their names are shown relative to it.
    """
    rows = [
        (name, _shown_name(finding, folder), f"{finding.found}; expected {finding.expected}", finding.remedy)
        for name, of_case in findings.items()
        for finding in of_case
    ]
    bad = sum(bool(of_case) for of_case in findings.values())
    last = f"{len(findings) - bad} good, {bad} bad of {len(findings)} cases: {folder}"
    if not rows:
        return [last]
    case_width, file_width = (max(len(row[column]) for row in (HEADER, *rows)) for column in (0, 1))
    lines = [f"{HEADER[0]:{case_width}}  {HEADER[1]:{file_width}}  {HEADER[2]}"]
    for name, file, found, remedy in rows:
        lines.append(f"{name:{case_width}}  {file:{file_width}}  {found}")
        lines.append(f"{'':{case_width}}  {'':{file_width}}  -> {remedy}")
    return [*lines, "", last]


def _shown_name(finding: Finding, folder: Path) -> str:
    """A dash for the case as a whole, a full path for a file in another folder."""
    if finding.file is None:
        return "-"
    return finding.file.name if finding.file.parent == folder else str(finding.file)
