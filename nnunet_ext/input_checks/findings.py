"""What a check reports: the file, what was found, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a case, worded for the person who has to fix it.

    Attributes:
        file: The file that is wrong; None for the case as a whole.
        found: What is there.
        expected: What should be there.
        remedy: What to do, as one or more full sentences.
    """

    file: Path | None
    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        where = "case" if self.file is None else str(self.file)
        return f"{where}: found {self.found}; expected {self.expected}. {self.remedy}"


class BadInputError(ValueError):
    """The image files of a case are damaged or inconsistent.

    Attributes:
        findings: All that was found, in the order of the files.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))

    def __reduce__(self) -> tuple[type[BadInputError], tuple[tuple[Finding, ...]]]:
        # The default would rebuild the error from its message, which fails when a worker process returns it.
        return type(self), (self.findings,)


class UnreadableFile(Exception):
    """Raised while a file is read and turned into a `Finding` by `read_image`; never leaves the package."""

    def __init__(self, found: str, expected: str, remedy: str) -> None:
        super().__init__(found)
        self.found = found
        self.expected = expected
        self.remedy = remedy
