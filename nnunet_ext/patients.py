"""Which patient a case belongs to, by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable

NUMBER_AND_WORD = re.compile(r"(.*[0-9])[_-][^_-]+")  # patient001_frame12, A0-17-es
PATTERN_OF_SUCH_NAMES = "(.+)[_-]"  # for `patient_of`: everything before the last word


def patient_of(case: str, pattern: str | None) -> str:
    """The patient's name in a case's name.

    Cases of a patient resemble each other, two frames of a heart or several studies, so statistics that treat them as
    independent are over-confident.

    Args:
        case: its name.
        pattern: a regular expression, searched for anywhere in the name; its first group is the patient, as in
            "(patient[0-9]+)_frame". None: each case is a patient of its own.

    Raises:
        ValueError: if the pattern is not a regular expression, has no group, or does not match the case.
    """
    if pattern is None:
        return case
    match = expression_of(pattern).search(case)
    if match is None or not match.group(1):
        raise ValueError(
            f'The pattern of patients must match every case; "{pattern}" finds no patient in "{case}". Correct the '
            f"pattern, or rename the case."
        )
    return match.group(1)


def expression_of(pattern: str) -> re.Pattern[str]:
    """The pattern of patients, compiled; options check it before any work is done.

    Raises:
        ValueError: if it is not a regular expression, or has no group.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f'The pattern of patients must be a regular expression; found "{pattern}": {error}.'
        ) from None
    if not expression.groups:
        raise ValueError(
            f'The pattern of patients must have a group in parentheses around the patient\'s name; found "{pattern}".'
        )
    return expression


def cases_of_one_name(cases: Iterable[str]) -> dict[str, list[str]]:
    """Cases whose names look as if they belonged to one patient: `patient001_frame01` and `patient001_frame12`.

    Such names have a number, then `_` or `-`, then one more word; everything before that word is taken as the
    patient. So `hippocampus_001` and `hippocampus_002` are not such names: what they share does not end in a number.
    Neither are those of a few collections with many cases each, `KiTS19_001` and `KiTS21_001`: there must be at least
    as many patients as cases of any one of them.

    Args:
        cases: names.

    Returns:
        Name of a patient to cases, sorted, where there are at least two; empty if the names do not look like that.
    """
    patients: dict[str, list[str]] = {}
    for case in sorted(set(cases)):
        match = NUMBER_AND_WORD.fullmatch(case)
        if match:
            patients.setdefault(match.group(1), []).append(case)
    if not patients or len(patients) < max(map(len, patients.values())):
        return {}
    return {patient: names for patient, names in patients.items() if len(names) > 1}
