"""The table that people annotate by, and that the next round leaves out."""

from __future__ import annotations

import re

import pytest

from nnunet_ext.evaluation.summary import write_table
from nnunet_ext.selection.table import Annotated, boxes_in, row_of
from nnunet_ext.selection.units import Choice, Unit

SLICE = Unit("a", ((2, 3), (0, 5), (0, 7)), 0.25, slice=2)


def test_a_row_names_what_to_annotate():
    assert row_of(1, Choice(SLICE, 3), {3: "tumour"}, {"images": "a_0000.nii.gz"}) == {
        "rank": 1,
        "case": "a",
        "slice": 2,
        "box": "2:3 0:5 0:7",
        "score": 0.25,
        "label": "tumour",
        "images": "a_0000.nii.gz",
    }


def test_what_an_earlier_table_names_is_annotated(tmp_path):
    write_table([row_of(1, Choice(SLICE), {}, {})], tmp_path / "selected.csv")
    annotated = Annotated(frozenset({"b"}), boxes_in(tmp_path / "selected.csv"))
    assert annotated.has(SLICE)
    assert not annotated.has(Unit("a", ((3, 4), (0, 5), (0, 7)), 0.9))
    assert annotated.has(Unit("b", ((0, 1), (0, 1), (0, 1)), 0.9))
    assert not annotated.has(Unit("c", SLICE.box, 0.9))


def test_another_table_is_refused(tmp_path):
    (tmp_path / "cases.csv").write_text("case,members\na,5\n")
    with pytest.raises(ValueError, match=re.escape("has the columns case and box, such as 0:12 0:256 0:256")):
        boxes_in(tmp_path / "cases.csv")
