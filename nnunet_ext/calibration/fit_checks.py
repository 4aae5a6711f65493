"""What a fit needs, checked before any case is predicted."""

from __future__ import annotations

from nnunet_ext.calibration.risk_control import require_alpha
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


def require_patients(cases: int, patients: int, miss_rate: float | None) -> None:
    """Refuses too few patients.

    Args:
        cases: that are held out.
        patients: whose they are.
        miss_rate: of the covering mask; None leaves it out where the patients do not suffice.

    Raises:
        ValueError: if there is one patient only, or too few for the miss rate.
    """
    if patients < 2:
        raise ValueError(
            f"Calibration needs cases of at least two patients; found {cases} cases of {patients}. Use "
            f"more folds with -f, or say with --patients which part of a case's name is the patient."
        )
    if miss_rate is not None:
        require_alpha(miss_rate, patients)
