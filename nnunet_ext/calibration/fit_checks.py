"""What a fit needs, checked before any case is predicted."""

from __future__ import annotations

from collections.abc import Collection

from nnunet_ext.evaluation.confidences import ADDED_LATER, BETWEEN_MEMBERS, DIRECTIONS
from nnunet_ext.options import AUTOMATIC

# columns that an ensemble writes: predicted Dice comes from a calibration and cannot be the basis of one
CONFIDENCES = tuple(column for column in DIRECTIONS if column not in ADDED_LATER)


def require_confidence(column: str) -> None:
    """Refuses a confidence that no ensemble writes.

    Args:
        column: what `FitOptions.confidence` asks for.

    Raises:
        ValueError: if it is neither a column of `cases.csv` that a calibration can use, nor "auto".
    """
    if column not in (AUTOMATIC, *CONFIDENCES):
        raise ValueError(f"The confidence must be one of {', '.join(CONFIDENCES)}, or {AUTOMATIC}; found {column!r}.")


def require_members_for(column: str, members: int) -> None:
    """Refuses a confidence that compares members, of a single one.

    Args:
        column: what `FitOptions.confidence` asks for.
        members: that a case is averaged over.

    Raises:
        ValueError: if so.
    """
    if column in BETWEEN_MEMBERS and members < 2:
        raise ValueError(
            f"--confidence {column} compares members; found {members} per fold. Use --tta-members or more --members."
        )


def require_patients(work: str, patients: Collection[str]) -> int:
    """Refuses the cases of a single patient: nothing can be left out.

    Args:
        work: that needs them, such as "Calibration".
        patients: of each case.

    Returns:
        How many patients there are.

    Raises:
        ValueError: if there are fewer than two.
    """
    found = len({*patients})
    if found < 2:
        raise ValueError(
            f"{work} needs cases of at least two patients; found {len(patients)} cases of {found}. Use "
            f"more folds with -f, or say with --patients which part of a case's name is the patient."
        )
    return found
