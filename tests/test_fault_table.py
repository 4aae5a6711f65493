"""The table of docs/reference/faults.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

from reference.fault_table import FAULTS

ROOT = Path(__file__).parent.parent


def test_every_test_that_the_table_names_exists():
    named = {test for rows in FAULTS.values() for row in rows for test in row.tests}
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 40
    assert sorted(named - set(re.findall(r"^def (test_\w+)", sources, re.MULTILINE))) == []


def test_every_group_of_faults_is_on_the_page():
    page = (ROOT / "docs" / "reference" / "faults.md").read_text(encoding="utf-8")
    assert re.findall(r"^```\{generated\} faults (.+)$", page, re.MULTILINE) == list(FAULTS)
