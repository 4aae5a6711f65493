"""A prediction folder that contradicts itself is refused by the names of its cases; stock's is taken as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnunet_ext.prediction_folder.agreement import (
    DisagreementError,
    other_ensembles,
    require_agreement,
    unmatched,
)
from nnunet_ext.prediction_folder.case_table import CaseTable
from nnunet_ext.prediction_folder.provenance import Provenance

CALIBRATED = {"stages": ["describe", "calibrate"]}
PLAIN = {"stages": ["describe"]}


def rows(*cases: str, **cells: str) -> list[dict[str, str]]:
    return [{"case": case, "members": "2", **cells} for case in cases]


@pytest.mark.parametrize(
    ("tabled", "segmented", "found"),
    [
        ("ab", {"a", "b"}, []),
        ("ab", {"b"}, ["no segmentation of a, which cases.csv lists"]),
        ("a", {"a", "b", "c"}, ["no row in cases.csv for the segmentation of b, c"]),
        ("", set("abcde"), ["no row in cases.csv for the segmentation of a, b, c and 2 more"]),
        (["a"], {"a", "a_0000", "a_0001"}, []),
        (["a_0000"], {"a_0000"}, []),
        (["a"], {"a", "b_0000"}, ["no row in cases.csv for the segmentation of b_0000"]),
    ],
)
def test_rows_and_segmentations_are_matched_by_case(tabled, segmented, found):
    assert unmatched(rows(*tabled), segmented) == found


@pytest.mark.parametrize(
    ("members_averaged", "settings", "table", "found"),
    [
        (2, PLAIN, rows("a", "b"), []),
        (1, PLAIN, rows("a", "b"), ["2 members for a, b in cases.csv, but 1 in predict_args.json"]),
        (None, {}, rows("a", verdict="accept"), []),
        (2, CALIBRATED, rows("a", verdict="accept"), []),
        (2, CALIBRATED, rows("a"), ["no verdict for a, but a calibration in predict_args.json"]),
        (2, PLAIN, rows("a", verdict="review"), ["a verdict for a, but no calibration in predict_args.json"]),
    ],
)
def test_rows_are_held_against_the_recorded_ensemble(members_averaged, settings, table, found):
    assert other_ensembles(table, Provenance((), settings, members_averaged)) == found


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """`folder("ab", "bc")`: rows of a and b, segmentations of b and c, and a record of two members."""

    def make(tabled: str, segmented: str, **record: Any) -> Path:
        table = CaseTable(tmp_path, keep_existing=False)
        for case in tabled:
            table.add({"case": case, "members": 2})
        for case in segmented:
            (tmp_path / f"{case}.nii.gz").touch()
        (tmp_path / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz"}))
        members = [{"name": f"fold_{fold}", "sha256": ""} for fold in (0, 1)]
        description = {"arguments": {"tta_members": False}, "members": members, **record}
        (tmp_path / "predict_args.json").write_text(json.dumps(description))
        return tmp_path

    return make


def test_a_folder_that_agrees_is_read(folder):
    require_agreement(folder("ab", "ab"))


def test_all_contradictions_are_named_at_once(folder):
    record = {"members": [{"name": "fold_0", "sha256": ""}]}
    with pytest.raises(DisagreementError, match=r"no segmentation of a.*segmentation of c.*2 members for a, b"):
        require_agreement(folder("ab", "bc", **record))


def test_a_table_that_is_gone_is_a_contradiction(folder):
    predictions = folder("a", "a")
    (predictions / "cases.csv").unlink()
    with pytest.raises(DisagreementError, match=r"no row in cases\.csv for the segmentation of a"):
        require_agreement(predictions)


def test_a_folder_without_a_record_is_taken_as_it_is(folder):
    predictions = folder("ab", "bc")
    (predictions / "predict_args.json").unlink()
    require_agreement(predictions)
