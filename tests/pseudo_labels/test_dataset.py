"""Description, splits and round of the dataset with pseudo-labels."""

from __future__ import annotations

import json

import pytest

from nnunet_ext.pseudo_labels.dataset import (
    FILE_NAME,
    EarlierRound,
    earlier_round,
    ignore_label,
    pseudo_dataset_json,
    sampling_weight,
    splits_with,
)

SPLITS = [{"train": ["p1_a"], "val": ["p2_a"]}, {"train": ["p2_a", "old"], "val": ["p1_a", "old"]}]
LABELLED = {"p1_a", "p2_a"}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"background": 0, "organ": 1, "tumour": 2}, 3),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3]}, 4),
        ({"background": 0, "organ": 1, "ignore": 2}, 2),
    ],
)
def test_the_ignore_label_is_the_highest_one(labels, expected):
    assert ignore_label(labels) == expected
    assert pseudo_dataset_json({"labels": labels}, {})["labels"] == {**labels, "ignore": expected}


def test_folds_hold_out_labelled_cases_only():
    assert splits_with(SPLITS, LABELLED, ["p1_b", "p3_a"], None) == [
        {"train": ["p1_a", "p1_b", "p3_a"], "val": ["p2_a"]},
        {"train": ["p2_a", "p1_b", "p3_a"], "val": ["p1_a"]},
    ]


def test_a_case_of_a_held_out_patient_is_left_out_of_the_fold():
    found = splits_with(SPLITS, LABELLED, ["p1_b", "p3_a"], "(p[0-9])_")
    assert [split["train"] for split in found] == [["p1_a", "p1_b", "p3_a"], ["p2_a", "p3_a"]]


def test_splits_of_another_dataset_are_refused():
    with pytest.raises(ValueError, match="--splits"):
        splits_with(SPLITS, {"other"}, ["p3_a"], None)


@pytest.mark.parametrize(("labelled", "pseudo", "expected"), [(10, 40, 0.25), (10, 10, 1), (10, 2, 1)])
def test_pseudo_labels_are_loaded_at_most_as_often_as_labels(labelled, pseudo, expected):
    assert sampling_weight(labelled, pseudo) == expected


def test_rounds_are_counted_from_the_record(tmp_path):
    assert earlier_round(tmp_path) == EarlierRound(0, frozenset())
    (tmp_path / FILE_NAME).write_text(json.dumps({"round": 2, "cases": {"p3_a": {}}}))
    assert earlier_round(tmp_path) == EarlierRound(2, frozenset({"p3_a"}))


def test_a_damaged_record_is_refused(tmp_path):
    (tmp_path / FILE_NAME).write_text('{"round": 1')
    with pytest.raises(ValueError, match=FILE_NAME):
        earlier_round(tmp_path)
