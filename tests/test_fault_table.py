"""docs/reference/faults.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_test_that_the_table_names_exists():
    table = (ROOT / "docs" / "reference" / "faults.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", table))
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 40
    assert sorted(named - set(re.findall(r"^def (test_\w+)", sources, re.MULTILINE))) == []
