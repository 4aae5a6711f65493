"""Splits by patient, counted by hand, and nnU-Net's file of them."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from nnunet_ext.splits import (
    SharedPatient,
    case_of_two_folds,
    complete_folds,
    read_splits,
    shared_patients,
    splits_by_patient,
    with_fewer_cases,
)

SPLITS = [{"train": ["c", "d", "e"], "val": ["b", "a"]}, {"train": ["a", "b"], "val": ["c", "d", "e"]}]


def frames(*counts: int) -> dict[str, str]:
    """Case to patient: so many cases of the first patient, of the second, ..."""
    return {f"p{n:02}_{frame}": f"p{n:02}" for n, count in enumerate(counts) for frame in range(count)}


def held_out_patients(splits: list[dict[str, list[str]]], patients: dict[str, str]) -> list[set[str]]:
    return [{patients[case] for case in split["val"]} for split in splits]


# --- by patient ---


def test_a_patients_cases_stay_together_and_every_case_is_held_out_once():
    patients = frames(*[2] * 10)
    splits = splits_by_patient(patients)
    assert len(splits) == 5
    assert sorted(case for split in splits for case in split["val"]) == sorted(patients)
    for split in splits:
        assert split["val"] == sorted(split["val"])
        assert split["train"] == sorted(set(patients) - set(split["val"]))
        assert not {patients[case] for case in split["train"]} & {patients[case] for case in split["val"]}
        assert len(split["val"]) == 4  # two of ten patients


def test_folds_are_balanced_in_the_number_of_cases():
    """5, 4, 3, 3, 2, 2, 1 are 20 in two folds: 5 | 4 + 3 | 3 to the 5 | 2, 2 and 1 wherever there are fewest."""
    splits = splits_by_patient(frames(5, 4, 3, 3, 2, 2, 1), folds=2)
    assert [len(split["val"]) for split in splits] == [10, 10]
    assert [len(split["val"]) for split in splits_by_patient(frames(*[1] * 7), folds=3)] == [3, 2, 2]


def test_the_same_seed_gives_the_same_splits_and_the_order_of_the_cases_does_not_matter():
    patients = frames(*[2] * 20)
    backwards = dict(sorted(patients.items(), reverse=True))
    assert splits_by_patient(patients, seed=3) == splits_by_patient(backwards, seed=3)
    assert splits_by_patient(patients, seed=3) != splits_by_patient(patients, seed=4)


def test_folds_are_balanced_in_groups_as_well():
    """Four patients of each of five diagnoses, in two folds: two of each."""
    patients = frames(*[1] * 20)
    groups = {case: f"diagnosis {index % 5}" for index, case in enumerate(sorted(patients))}
    for split in splits_by_patient(patients, folds=2, groups=groups):
        assert set(Counter(groups[case] for case in split["val"]).values()) == {2}


def test_groups_smaller_than_the_folds_still_give_equal_folds():
    """Three patients of each of two groups, in five folds: no fold has two of a group, and none is empty."""
    patients = frames(*[1] * 6)
    groups = {case: "ab"[index % 2] for index, case in enumerate(sorted(patients))}
    splits = splits_by_patient(patients, folds=5, groups=groups)
    assert sorted(len(split["val"]) for split in splits) == [1, 1, 1, 1, 2]
    for split in splits:
        assert max(Counter(groups[case] for case in split["val"]).values()) == 1


@pytest.mark.parametrize(("count", "folds"), [(4, 5), (4, 1), (0, 2)])
def test_each_fold_needs_a_patient_of_its_own(count, folds):
    with pytest.raises(ValueError, match=rf"found {folds} folds and {count} patients"):
        splits_by_patient(frames(*[2] * count), folds=folds)


def test_a_patient_of_two_groups_is_refused():
    with pytest.raises(ValueError, match="p00_1 of p00 is in 'b', another one in 'a'"):
        splits_by_patient(frames(2, 1), folds=2, groups={"p00_0": "a", "p00_1": "b", "p01_0": "a"})


# --- patients on both sides ---


def test_patients_on_both_sides_of_a_fold_are_found():
    trained, held_out = ["p2_es", "p1_es", "p3_ed"], ["p1_ed", "p4_ed", "p2_ed", "p2_x"]
    assert shared_patients(trained, held_out, "(p.)_") == [
        SharedPatient("p1", ("p1_es",), ("p1_ed",)),
        SharedPatient("p2", ("p2_es",), ("p2_ed", "p2_x")),
    ]
    assert shared_patients(trained, ["p4_ed"], "(p.)_") == []


# --- the file ---


def test_splits_are_read_as_nnunet_writes_them(tmp_path):
    (tmp_path / "splits_final.json").write_text(json.dumps(SPLITS))
    assert read_splits(tmp_path / "splits_final.json") == SPLITS


@pytest.mark.parametrize("content", [{"train": [], "val": []}, [{"train": ["a"]}], [["a"], ["b"]], "a", None])
def test_splits_of_another_form_are_refused(content: Any, tmp_path):
    (tmp_path / "splits.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'list of folds with "train" and "val"; .*splits\.json has another form'):
        read_splits(tmp_path / "splits.json")


def test_splits_that_are_no_json_are_refused(tmp_path):
    (tmp_path / "splits.json").write_text("train: a")
    with pytest.raises(ValueError, match=r"splits\.json has another form"):
        read_splits(tmp_path / "splits.json")


def test_missing_splits_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"splits_final\.json does not exist\. .*--splits"):
        read_splits(tmp_path / "splits_final.json")


# --- fewer training cases ---

TEN_PATIENTS = frames(*[2] * 10)  # two cases each


def fewer(cases: int, *, seed: int = 0, patients: dict[str, str] = TEN_PATIENTS) -> dict[str, list[str]]:
    """A fold that holds out the two cases of p09 and trains on some of the other eighteen."""
    split = {
        "train": [case for case in patients if not case.startswith("p09")],
        "val": [case for case in patients if case.startswith("p09")],
    }
    return with_fewer_cases(split, patients, cases, seed=seed)


def test_fewer_training_cases_are_whole_patients_and_the_validation_cases_stay():
    """Seven cases are three patients of two, and one left over that nobody gets."""
    subset = fewer(7)
    assert [len(subset["train"]), subset["val"]] == [6, ["p09_0", "p09_1"]]
    assert set(Counter(TEN_PATIENTS[case] for case in subset["train"]).values()) == {2}


@pytest.mark.parametrize("patients", [TEN_PATIENTS, frames(3, 1, 5, 2, 2, 1, 4, 1, 2, 2)])
def test_the_cases_of_a_smaller_number_are_among_those_of_a_larger_one(patients):
    subsets = [set(fewer(cases, seed=7, patients=patients)["train"]) for cases in range(5, 19)]
    assert all(smaller <= larger for smaller, larger in pairwise(subsets))
    assert len(subsets[0]) < len(subsets[-1])


def test_the_seed_decides_which_cases_are_kept():
    assert fewer(6, seed=1) == fewer(6, seed=1)
    assert len({tuple(fewer(6, seed=seed)["train"]) for seed in range(5)}) > 1


def test_all_cases_are_the_fold_itself():
    assert fewer(18)["train"] == [case for case in sorted(TEN_PATIENTS) if not case.startswith("p09")]


@pytest.mark.parametrize(("cases", "message"), [(1, "has more cases than 1"), (19, "all of its 18 .* found 19")])
def test_numbers_that_no_subset_has_are_refused(cases, message):
    with pytest.raises(ValueError, match=message):
        fewer(cases)


def test_complete_folds_name_every_case():
    subset = {"train": ["c"], "val": ["a", "b"]}
    assert complete_folds([*SPLITS, subset]) == [0, 1]


def test_a_case_that_two_folds_hold_out_is_found():
    assert case_of_two_folds({0: ["a", "b"], 1: ["c"], 2: ["d", "b"]}) == ("b", 0, 2)
    assert case_of_two_folds({0: ["a", "b"], 1: ["c"]}) is None
