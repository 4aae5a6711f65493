"""Whether an ensemble is at least as good as the mean of its members (arXiv 2502.09269, Eq. 1), measured as Dice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from statistics import fmean

import numpy as np

from nnunet_ext.evaluation.case_metrics import Judgement, mean_dice
from nnunet_ext.evaluation.overlap_counts import joint_histogram, overlap_counts
from nnunet_ext.evaluation.results import CaseEvaluation
from nnunet_ext.evaluation.text import count

PAPER = "arXiv 2502.09269, Eq. 1"
FEWEST_MEMBERS = 2


@dataclass(frozen=True)
class Superadditivity:
    """The ensemble against its members, over the cases for which both have a Dice.

    Attributes:
        members: number of members; of a mixture its classifiers count.
        dice: mean Dice of the ensemble.
        mean_of_members: mean over the cases of the mean Dice of the members.
        best_member: name of the member with the largest mean Dice. Only members that have a Dice in every case are
            compared, as others were judged on other cases, such as those of their fold; None if there is none.
        best_member_dice: its mean Dice; None likewise.
        cases: number of cases.
        superadditive_cases: number of cases in which the ensemble has at least the mean Dice of its members.
    """

    members: int
    dice: float
    mean_of_members: float
    best_member: str | None
    best_member_dice: float | None
    cases: int
    superadditive_cases: int


def member_files(prediction_folder: Path, case: str, file_ending: str) -> dict[str, Path]:
    """The members' own segmentations of a case, by the name of their folder; see `predict --save_members`.

    A mixture stands for its classifiers: it is left out where those were written.
    """
    folders = sorted(path for path in (prediction_folder / "members").glob("*") if path.is_dir())
    mixtures = {path.name.rpartition("+classifier")[0] for path in folders}
    files = {path.name: path / f"{case}{file_ending}" for path in folders if path.name not in mixtures}
    return {name: file for name, file in files.items() if file.is_file()}


def member_dice(prediction: np.ndarray, truth: np.ndarray, judgement: Judgement) -> float:
    """The figure `mean_dice` of one member.

    Args:
        prediction: its segmentation, (z, y, x).
        truth: (z, y, x).
        judgement: how the case is evaluated.
    """
    histogram = joint_histogram(truth, prediction)
    counts = [
        overlap_counts(histogram, labels, ignore_label=judgement.ignore_label)
        for labels in judgement.structures.values()
    ]
    return mean_dice(counts, judgement.metrics.absent)


def superadditivity(cases: Sequence[CaseEvaluation]) -> Superadditivity | None:
    """The ensemble against its members; None unless there are cases with at least two of them."""
    pairs = [(case.figures["mean_dice"], defined(case.member_dice)) for case in cases]
    pairs = [(dice, members) for dice, members in pairs if not isnan(dice) and len(members) >= FEWEST_MEMBERS]
    if not pairs:
        return None
    names = [set(members) for _, members in pairs]
    in_every_case = sorted(set.intersection(*names))
    means = {name: fmean(members[name] for _, members in pairs) for name in in_every_case}
    best = max(in_every_case, key=means.__getitem__, default=None)
    return Superadditivity(
        members=len(set.union(*names)),
        dice=fmean(dice for dice, _ in pairs),
        mean_of_members=fmean(fmean(members.values()) for _, members in pairs),
        best_member=best,
        best_member_dice=None if best is None else means[best],
        cases=len(pairs),
        superadditive_cases=sum(dice >= fmean(members.values()) for dice, members in pairs),
    )


def defined(values: Mapping[str, float]) -> dict[str, float]:
    """The values that are not NaN."""
    return {name: value for name, value in values.items() if not isnan(value)}


def superadditivity_lines(found: Superadditivity | None) -> list[str]:
    """One line for the terminal; nothing if there are no members."""
    if found is None:
        return []
    best = (
        "no best member, as none has a Dice in every case"
        if found.best_member_dice is None
        else f"best member {found.best_member_dice:.3f}"
    )
    return [
        "",
        f"Superadditivity ({PAPER}): Dice {found.dice:.3f}, mean of its {found.members} members "
        f"{found.mean_of_members:.3f} ({found.dice - found.mean_of_members:+.3f}), {best}; at least their mean in "
        f"{found.superadditive_cases} of {count(found.cases, 'case')}",
    ]
