"""The faults and the tests that show what happens then, as tables."""

from __future__ import annotations

from reference.fault_table import FAULTS
from reference.markdown import code, table


def faults_of(*words: str) -> str:
    """The faults of one group."""
    rows = [[row.fault, row.happens, ", ".join(map(code, row.tests))] for row in FAULTS[" ".join(words)]]
    return table(["fault", "what happens", "test"], rows)
