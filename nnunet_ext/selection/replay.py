"""A replayed selection: which cases are labelled at a step, how good the training was, and what that says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from nnunet_ext.options import StrategyName

BASELINE = "random"


@dataclass(frozen=True)
class Step:
    """One training of a replay.

    Attributes:
        seed: of the replay.
        strategy: that selected.
        round: number of selections so far; 0 is the start.
        cases: number of labelled cases.
        fold: that trained on them.
        mean_dice: of the validation cases, as nnU-Net's `summary.json` has it.
        added: the cases that the last selection added.
    """

    seed: int
    strategy: StrategyName
    round: int
    cases: int
    fold: int
    mean_dice: float
    added: tuple[str, ...] = ()

    def row(self) -> dict[str, object]:
        """For the table."""
        return {
            "seed": self.seed,
            "strategy": self.strategy,
            "round": self.round,
            "cases": self.cases,
            "fold": self.fold,
            "mean_dice": self.mean_dice,
            "added": ";".join(self.added),
        }


def dice_of(steps: Sequence[Step], strategy: str, number: int) -> list[float]:
    """The mean Dice of all seeds after a number of selections."""
    return [step.mean_dice for step in steps if step.strategy == strategy and step.round == number]


def replay_lines(steps: Sequence[Step]) -> list[str]:
    """A table with a line per round, and each strategy against the baseline, seed by seed."""
    strategies = list(dict.fromkeys(step.strategy for step in steps))
    rounds = sorted({step.round for step in steps})
    lines = ["round  cases  " + "  ".join(f"{strategy:>13}" for strategy in strategies)]
    for number in rounds:
        cases = max(step.cases for step in steps if step.round == number)
        cells = [f"{spread(dice_of(steps, strategy, number)):>13}" for strategy in strategies]
        lines.append(f"{number:5}  {cases:5}  " + "  ".join(cells))
    if BASELINE in strategies:
        lines += [
            against_baseline(steps, strategy)
            for strategy in strategies
            if strategy != BASELINE and mean_by_seed(steps, strategy)
        ]
    return lines


def spread(values: Sequence[float]) -> str:
    """The mean, with the standard deviation of several."""
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "-"
    return f"{fmean(values):.3f} ± {stdev(values):.3f}"


def mean_by_seed(steps: Sequence[Step], strategy: str) -> dict[int, float]:
    """Seed to the mean Dice over all rounds after the start, which is the area under the curve."""
    seeds = sorted({step.seed for step in steps})
    found = {
        seed: [step.mean_dice for step in steps if (step.seed, step.strategy) == (seed, strategy) and step.round]
        for seed in seeds
    }
    return {seed: fmean(values) for seed, values in found.items() if values}


def against_baseline(steps: Sequence[Step], strategy: str) -> str:
    """How much higher a strategy is than foreground-aware random, in the mean over the rounds after the start."""
    own, baseline = mean_by_seed(steps, strategy), mean_by_seed(steps, BASELINE)
    differences = {seed: own[seed] - baseline[seed] for seed in own if seed in baseline}
    if not differences or any(math.isnan(value) for value in differences.values()):
        return f"{strategy} against {BASELINE}: no seed has both"
    by_seed = ", ".join(f"{value:+.3f} with seed {seed}" for seed, value in differences.items())
    return f"{strategy} - {BASELINE}, mean over the rounds: {by_seed}"
