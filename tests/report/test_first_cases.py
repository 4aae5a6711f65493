"""The table of the cases to open first, with as many columns as there is something to say."""

from __future__ import annotations

import dataclasses

from nnunet_ext.report.data import gather
from nnunet_ext.report.first_cases import first_case_lines


def test_the_least_confident_case_comes_first(prediction):
    assert first_case_lines(gather(prediction)) == [
        "open first  pairwise Dice  foreground entropy  mean entropy",
        "heart_b     0.520          0.123               0.031",
        "heart_c     0.780          0.123               0.031",
        "heart_a     0.910          0.123               0.031",
    ]


def test_cases_that_are_left_out_are_counted(prediction):
    _, *rows = first_case_lines(gather(prediction), shown=1)
    assert [row.split()[0] for row in rows] == ["heart_b", "and"]
    assert rows[-1].startswith("and 2 more")


def test_verdicts_and_flags_are_shown_where_there_are_any(prediction):
    data = gather(prediction)
    rows = [
        {"case": "a", "verdict": "reject", "predicted_dice": "", "flags": "empty_segmentation"},
        {"case": "b", "verdict": "accept", "predicted_dice": "0.87", "flags": ""},
    ]
    cases = [dataclasses.replace(case, row=row) for case, row in zip(data.cases, rows, strict=False)]
    assert first_case_lines(dataclasses.replace(data, cases=cases, calibrated=True)) == [
        "open first  verdict  predicted Dice  flags",
        "a           reject   no estimate     empty_segmentation",
        "b           accept   0.870",
    ]
