"""Divides cases into those to fit to and those to measure on, so that no patient is on both sides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

HELD_OUT_GROUPS = 5  # of patients, where there is only one fold


class CaseOfPatient(Protocol):
    """A case that a fold held out."""

    @property
    def case(self) -> str:
        """Its name."""

    @property
    def patient(self) -> str:
        """Patient that it belongs to."""

    @property
    def fold(self) -> str:
        """Fold whose members predicted it."""


AnyCase = TypeVar("AnyCase", bound=CaseOfPatient)


def held_out_parts(cases: Sequence[AnyCase]) -> Iterator[tuple[list[AnyCase], list[AnyCase]]]:
    """Cases to fit to and to measure on: one fold at a time, or a fifth of the patients if there is one fold."""
    folds = sorted({case.fold for case in cases})
    patients = sorted({case.patient for case in cases})
    if len(folds) > 1:
        group = {case.case: case.fold for case in cases}
    else:
        number = {patient: str(index % HELD_OUT_GROUPS) for index, patient in enumerate(patients)}
        group = {case.case: number[case.patient] for case in cases}
    for name in sorted(set(group.values())):
        kept = [case for case in cases if group[case.case] == name]
        held = {case.patient for case in kept}
        yield [case for case in cases if case.patient not in held], kept
