"""The cards of the worst cases."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from nnunet_ext.report.case_pictures import CasePictures, draw_case
from nnunet_ext.report.data import ReportCase, ReportData
from nnunet_ext.report.numbers import column_words, fixed, interval, significant, with_spread
from nnunet_ext.report.plots.dice_interval import dice_interval

CONFIDENCES = ("pairwise_dice", "foreground_entropy", "mean_entropy", "mutual_information")


@dataclass(frozen=True)
class Card:
    """One case as it is shown.

    Attributes:
        rank: from 1, the worst.
        name: of the case.
        verdict: empty without calibration.
        reason: for the verdict.
        flags: in words.
        facts: name and text of key numbers.
        volumes: name of a structure, and its volume with spread.
        dice: the picture of the Dice; empty if none is known.
        pictures: slices.
    """

    rank: int
    name: str
    verdict: str
    reason: str
    flags: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    volumes: tuple[tuple[str, str], ...]
    dice: Markup
    pictures: CasePictures


def card(rank: int, case: ReportCase, data: ReportData) -> Card:
    """Reads and draws one case."""
    predicted, low, high = (case.number(f"predicted_dice{end}") for end in ("", "_low", "_high"))
    has_estimate = math.isfinite(predicted)
    facts = []
    if has_estimate or case.verdict:
        facts.append(("● predicted Dice" if has_estimate else "predicted Dice", interval(predicted, low, high)))
    if case.evaluation:
        facts.append(("▼ true Dice", fixed(case.dice)))
    facts += [
        (column_words(column), significant(case.number(column)))
        for column in CONFIDENCES
        if math.isfinite(case.number(column))
    ]
    volumes = [
        (name, with_spread(case.number(f"volume_ml_{name}"), case.number(f"volume_cv_{name}")))
        for name in data.structures
    ]
    if not has_estimate:  # an interval of 0 to 1 says nothing
        low = high = math.nan
    is_known = has_estimate or math.isfinite(case.dice)
    return Card(
        rank=rank,
        name=case.name,
        verdict=case.verdict,
        reason=case.row.get("verdict_reason") or "",
        flags=tuple(flag.replace("_", " ") for flag in case.flags),
        facts=tuple(facts),
        volumes=tuple(volumes),
        dice=dice_interval(predicted, low, high, case.dice) if is_known else Markup(),
        pictures=draw_case(case, data.reader),
    )
