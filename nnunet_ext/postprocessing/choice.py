"""Chooses steps on a cross-validation, one after the other, each judged on cases that were left out of its fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from nnunet_ext.evaluation.comparison import PairedComparison, paired_comparison
from nnunet_ext.evaluation.held_out_parts import held_out_parts
from nnunet_ext.labels import LabelScheme
from nnunet_ext.postprocessing.chain import applied
from nnunet_ext.postprocessing.cross_validated import CrossValidatedCase
from nnunet_ext.postprocessing.operations import OPERATIONS, as_json
from nnunet_ext.postprocessing.step import SegmentedCase, Step
from nnunet_ext.postprocessing.structures import Anatomy

Family = Sequence[Step]  # one operation with all its parameters, the one that changes least first


@dataclass(frozen=True)
class Trial:
    """A family of candidates and what it gained after the steps kept before it.

    Attributes:
        step: with the parameters that are best on all cases; the first of the family if none gains.
        gain: mean gain in Dice on cases left out of the choice of parameters, with its interval by patient.
        changed: cases whose Dice changed.
        kept: whether the interval is above 0.
    """

    step: Step
    gain: PairedComparison
    changed: int
    kept: bool

    def as_json(self) -> dict[str, Any]:
        """The entry of the report."""
        return {
            "step": as_json(self.step),
            **gain_as_json(self.gain),
            "changed": self.changed,
            "kept": self.kept,
        }


def gain_as_json(gain: PairedComparison) -> dict[str, Any]:
    """Mean gain and interval."""
    return {"gain": gain.mean_difference, "low": gain.low, "high": gain.high, "level": gain.level}


def families_of(anatomy: Anatomy, operations: Sequence[str] | None, *, probabilities: bool) -> list[Family]:
    """All families of a dataset, in the order of the table.

    Args:
        anatomy: the structures of the dataset.
        operations: names of the operations to try; None takes all.
        probabilities: whether the cases have probabilities.
    """
    return [
        family
        for operation in OPERATIONS
        if operations is None or operation.name in operations
        if probabilities or not operation.needs_probabilities
        for family in operation.candidates(anatomy)
    ]


class Choice:
    """The cases of a cross-validation, and the Dice that each has after some steps.

    Args:
        cases: predicted by members that were not trained on them.
        scheme: the structures whose mean Dice counts.
    """

    def __init__(self, cases: Sequence[CrossValidatedCase], scheme: LabelScheme) -> None:
        self.cases = list(cases)
        self.scheme = scheme
        self._dice: dict[tuple[int, tuple[Step, ...]], float] = {}
        self._latest: dict[int, tuple[tuple[Step, ...], SegmentedCase]] = {}

    def dice(self, number: int, steps: tuple[Step, ...]) -> float:
        """Mean Dice of a case after some steps."""
        key = (number, steps)
        if key not in self._dice:
            case = self.cases[number]
            result = applied(steps[-1:], self._after(number, steps[:-1]))
            self._dice[key] = case.dice(result.labels, self.scheme)
        return self._dice[key]

    def _after(self, number: int, steps: tuple[Step, ...]) -> SegmentedCase:
        """The case after some steps; of each case the latest is kept, since many candidates follow the same steps."""
        known, result = self._latest.get(number, ((), self.cases[number].segmented))
        if known != steps:
            result = applied(steps, self.cases[number].segmented)
            self._latest[number] = (steps, result)
        return result

    def gain(self, number: int, kept: tuple[Step, ...], step: Step | None) -> float:
        """Gain in Dice of a case by one more step; 0 without one."""
        return 0.0 if step is None else self.dice(number, (*kept, step)) - self.dice(number, kept)

    def best(self, family: Family, kept: tuple[Step, ...], numbers: Sequence[int]) -> Step | None:
        """The step of a family with the largest mean gain on some cases, the first of several; None if none gains."""
        gains = [fmean(self.gain(number, kept, step) for number in numbers) for step in family]
        return family[int(np.argmax(gains))] if max(gains) > 0 else None

    def steps(self, families: Sequence[Family], numbers: Sequence[int]) -> tuple[tuple[Step, ...], list[Trial]]:
        """Tries one family after the other on some cases, and keeps those whose gain is above 0.

        Returns:
            The steps that are kept, and all trials.
        """
        kept: tuple[Step, ...] = ()
        trials = []
        for family in families:
            trial = self.trial(family, kept, numbers)
            trials.append(trial)
            kept += (trial.step,) if trial.kept else ()
        return kept, trials

    def trial(self, family: Family, kept: tuple[Step, ...], numbers: Sequence[int]) -> Trial:
        """Judges a family: parameters from one part of the cases, gain from the other, in turn."""
        gains: dict[int, float] = {}
        for fitting, measuring in self.parts(numbers):
            step = self.best(family, kept, fitting)
            gains |= {number: self.gain(number, kept, step) for number in measuring}
        gain = self.compared(gains)
        step = self.best(family, kept, numbers)
        return Trial(
            step=family[0] if step is None else step,
            gain=gain,
            changed=sum(value != 0 for value in gains.values()),
            kept=step is not None and gain.low > 0,
        )

    def nested_gain(self, families: Sequence[Family], numbers: Sequence[int]) -> PairedComparison:
        """The gain of the whole choice: all steps are chosen again without the cases that they are judged by."""
        gains: dict[int, float] = {}
        for fitting, measuring in self.parts(numbers):
            steps, _ = self.steps(families, fitting)
            gains |= {number: self.dice(number, steps) - self.dice(number, ()) for number in measuring}
        return self.compared(gains)

    def compared(self, gains: dict[int, float]) -> PairedComparison:
        """Mean and interval of the cases' gains, by patient."""
        values = list(gains.values())
        return paired_comparison(values, [0.0] * len(values), groups=[self.cases[number].patient for number in gains])

    def parts(self, numbers: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
        """Cases to fit to and to measure on, see `held_out_parts`; a part without cases to fit to is left out."""
        number_of = {self.cases[number].case: number for number in numbers}
        for fitting, measuring in held_out_parts([self.cases[number] for number in numbers]):
            if fitting:
                yield [number_of[case.case] for case in fitting], [number_of[case.case] for case in measuring]
