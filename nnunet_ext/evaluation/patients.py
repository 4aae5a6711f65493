"""Which patient a case is of."""

from __future__ import annotations

import re


def patient_of(case: str, pattern: str | None) -> str:
    """The patient's name in a case's name.

    Cases of a patient resemble each other, two frames of a heart or several studies, so statistics that take them for
    independent promise too much.

    Args:
        case: its name.
        pattern: a regular expression, looked for anywhere in the name; its first group is the patient, as in
            "(patient[0-9]+)_frame". None: each case is a patient of its own.

    Raises:
        ValueError: if the pattern is no regular expression, has no group, or does not fit the case.
    """
    if pattern is None:
        return case
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
    match = expression.search(case)
    if match is None or not match.group(1):
        raise ValueError(
            f'The pattern of patients must give every case a name; "{pattern}" finds none in "{case}". Correct the '
            f"pattern, or rename the case."
        )
    return match.group(1)
