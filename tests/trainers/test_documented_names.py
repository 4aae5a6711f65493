"""The trainers in the tables of the methods' pages exist."""

import re
from pathlib import Path

import pytest

from nnunet_ext.trainers.names import trainer_class

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["self-distillation", "streaming"])
def test_every_trainer_in_a_table_of_a_methods_page_resolves(page):
    lines = (DOCS / "methods" / f"{page}.md").read_text(encoding="utf-8").splitlines()
    table = "\n".join(line for line in lines if line.startswith("|"))
    names = set(re.findall(r"`(nnUNetTrainer\w*)`", table))
    assert len(names) >= 1
    for name in names:
        assert trainer_class(name).__name__ == name
