"""Which cases each fold trains on and holds out: nnU-Net's `splits_final.json`, and such splits by patient."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nnunet_ext.patients import patient_of

Fold = TypeVar("Fold")  # a number or a name
Split = Mapping[str, Sequence[str]]  # "train" and "val" to names of cases

FILE_NAME = "splits_final.json"


def read_splits(file: Path) -> list[Split]:
    """nnU-Net's `splits_final.json`: one entry per fold.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it has another form.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"The splits used in training are needed to know which cases each fold was trained on; {file} does not "
            f"exist. Set nnUNet_preprocessed to the folder that the training used, or give the file with --splits."
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # not JSON
        content = None
    if not isinstance(content, list) or not all(
        isinstance(fold, dict) and {"train", "val"} <= fold.keys() for fold in content
    ):
        raise ValueError(
            f'Splits must be a list of folds with "train" and "val"; {file} has another form. Give the '
            f"right file with --splits."
        )
    return content


def case_of_two_folds(cases_of_fold: Mapping[Fold, Sequence[str]]) -> tuple[str, Fold, Fold] | None:
    """The first case that two folds hold out, with both; None if there is none, as in a cross-validation."""
    fold_of: dict[str, Fold] = {}
    for fold, cases in cases_of_fold.items():
        for case in cases:
            if fold_of.setdefault(case, fold) != fold:
                return case, fold_of[case], fold
    return None


@dataclass(frozen=True)
class SharedPatient:
    """A patient with cases on both sides of a fold.

    Attributes:
        patient: by name.
        trained: the patient's cases that are trained on.
        held_out: those that are not.
    """

    patient: str
    trained: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def example(self) -> str:
        """A case of each side, for messages."""
        return f"{self.held_out[0]} of {self.patient}, who has the case {self.trained[0]}"


def shared_patients(trained: Sequence[str], held_out: Sequence[str], pattern: str) -> list[SharedPatient]:
    """The patients with cases in both lists, sorted by name.

    Args:
        trained: names of cases.
        held_out: names of other cases.
        pattern: pattern of the patients, see `patient_of`.

    Raises:
        ValueError: if the pattern does not match a case.
    """
    sides: list[dict[str, list[str]]] = [{}, {}]
    for side, cases in zip(sides, (trained, held_out), strict=True):
        for case in sorted(set(cases)):
            side.setdefault(patient_of(case, pattern), []).append(case)
    return [
        SharedPatient(patient, tuple(sides[0][patient]), tuple(sides[1][patient]))
        for patient in sorted(sides[0].keys() & sides[1].keys())
    ]


def splits_by_patient(
    patients: Mapping[str, str], *, folds: int = 5, seed: int = 12345, groups: Mapping[str, str] | None = None
) -> list[dict[str, list[str]]]:
    """A cross-validation whose folds hold out whole patients, balanced in number of cases.

    Patients are taken in random order, those with most cases first, and each goes to the fold with the fewest
    held-out cases so far. With groups, such as the diagnosis or the centre, one group after the other is distributed,
    and the fewest cases of that group come first. If all patients have the same number of cases, folds differ by one
    patient at most; otherwise by about the cases of one patient.

    Args:
        patients: case to patient.
        folds: number of folds.
        seed: seed of the order; the same one gives the same splits with any version of Python.
        groups: case to the group in which the folds are to be balanced as well; None balances the number of cases
            only.

    Returns:
        Content of nnU-Net's `splits_final.json`: "train" and "val" of each fold, sorted. Every case is in "val" once.

    Raises:
        ValueError: if there are fewer than two folds, or fewer patients than folds, or a patient has cases in
            several groups.
    """
    sizes = Counter(patients.values())
    if not 2 <= folds <= len(sizes):
        raise ValueError(
            f"A cross-validation by patient needs at least 2 folds, and a patient for each; found {folds} folds and "
            f"{len(sizes)} patients."
        )
    group_of = _group_of_each(patients, groups)
    generator = random.Random(seed)  # Python guarantees the sequence of random() for a seed, not that of shuffle()
    order = {patient: generator.random() for patient in sorted(sizes)}
    held_out = [0] * folds
    fold_of: dict[str, int] = {}
    for group in sorted(set(group_of.values())):
        of_group = [0] * folds
        members = [patient for patient in sizes if group_of[patient] == group]
        for patient in sorted(members, key=lambda one: (-sizes[one], order[one])):
            fold = min(range(folds), key=lambda one: (of_group[one], held_out[one], one))
            fold_of[patient] = fold
            of_group[fold] += sizes[patient]
            held_out[fold] += sizes[patient]
    return [
        {
            "train": sorted(case for case, patient in patients.items() if fold_of[patient] != fold),
            "val": sorted(case for case, patient in patients.items() if fold_of[patient] == fold),
        }
        for fold in range(folds)
    ]


def complete_folds(splits: Sequence[Split]) -> list[int]:
    """The folds whose training and validation cases are all cases that the splits name, by index."""
    cases = [{*split["train"], *split["val"]} for split in splits]
    named = set().union(*cases)
    return [fold for fold, found in enumerate(cases) if found == named]


def with_fewer_cases(split: Split, patients: Mapping[str, str], cases: int, *, seed: int) -> dict[str, list[str]]:
    """A fold with fewer training cases and the same validation cases.

    Its patients are taken in random order until the next one would be too many, so that the training cases of a
    smaller number are among those of a larger one with the same seed.

    Args:
        split: the complete fold.
        patients: case to patient.
        cases: the largest number of training cases.
        seed: seed of the order; the same one gives the same cases with any version of Python.

    Raises:
        ValueError: if the fold has fewer training cases, or the first patient alone has more.
    """
    if cases > len(split["train"]):
        raise ValueError(f"A fold can keep at most all of its {len(split['train'])} training cases; found {cases}.")
    generator = random.Random(seed)
    order = {patient: generator.random() for patient in sorted({*patients.values()})}
    of_patient: dict[str, list[str]] = {}
    for case in sorted(split["train"]):
        of_patient.setdefault(patients[case], []).append(case)
    kept: list[str] = []
    for patient in sorted(of_patient, key=order.__getitem__):
        if len(kept) + len(of_patient[patient]) > cases:
            break
        kept += of_patient[patient]
    if not kept:
        raise ValueError(f"Patients stay whole, and the first one has more cases than {cases}. Raise the number.")
    return {"train": sorted(kept), "val": sorted(split["val"])}


def _group_of_each(patients: Mapping[str, str], groups: Mapping[str, str] | None) -> dict[str, str]:
    """Patient to group; the same for all without groups."""
    found: dict[str, str] = {}
    for case, patient in sorted(patients.items()):
        group = groups[case] if groups is not None else ""
        if found.setdefault(patient, group) != group:
            raise ValueError(
                f"Folds are balanced by patient, so all cases of a patient must be in one group; {case} of {patient} "
                f"is in {group!r}, another one in {found[patient]!r}."
            )
    return found
