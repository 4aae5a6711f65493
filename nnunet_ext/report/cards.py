"""The cards of the worst cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nnunet_ext.report.case_pictures import SlicePicture, draw_slices
from nnunet_ext.report.case_volumes import NoSegmentationError, read_volumes
from nnunet_ext.report.data import ReportCase, ReportData
from nnunet_ext.report.numbers import column_words, fixed, interval, significant, with_spread
from nnunet_ext.report.overlays import QUALITIES
from nnunet_ext.report.plots.dice_interval import dice_interval
from nnunet_ext.report.slices import shown_slices
from nnunet_ext.report.volumes import VolumeView, view_volumes

CONFIDENCES = ("pairwise_dice", "foreground_entropy", "mean_entropy", "mutual_information")


@dataclass(frozen=True)
class CasePictures:
    """The pictures of one case.

    Attributes:
        slices: the chosen ones, by position; empty if the segmentation cannot be read.
        view: all slices, for the viewer; None if there are none, or no bytes left for them.
        channels: names of the channels that can be looked at.
        map_name: of the uncertainty on the chosen slices; empty without a map.
        has_truth: whether its outline is drawn.
        notes: what is missing, a sentence each.
    """

    slices: tuple[SlicePicture, ...] = ()
    view: VolumeView | None = None
    channels: tuple[str, ...] = ()
    map_name: str = ""
    has_truth: bool = False
    notes: tuple[str, ...] = ()


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


def card(rank: int, case: ReportCase, data: ReportData, budget: int) -> Card:
    """Reads and draws one case.

    Args:
        rank: of the case.
        case: to draw.
        data: of all cases.
        budget: bytes that its pictures may have.
    """
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
        pictures=draw_case(case, data, budget),
    )


def draw_case(case: ReportCase, data: ReportData, budget: int) -> CasePictures:
    """Draws a case's chosen slices and, with the bytes that these leave, all slices."""
    try:
        volumes = read_volumes(case, data.reader, data.stack_axis)
    except NoSegmentationError as error:
        return CasePictures(notes=(f"No slices: {error}",))
    chosen = shown_slices(volumes.segmentation, volumes.uncertainty)
    for quality in QUALITIES:
        pictures = draw_slices(volumes, chosen, quality)
        size = sum(picture.size for picture in pictures)
        if size <= budget // 2:
            break
    view = view_volumes(volumes, chosen, budget - size)
    notes = list(volumes.notes)
    if view is None:
        notes.append("All slices would make this page too large. Report fewer cases (--cases) to look through them.")
    elif view.reduction:
        notes.append(f"Reduced to keep this page small: {view.reduction}. Report fewer cases (--cases) to see more.")
    return CasePictures(
        slices=tuple(pictures),
        view=view,
        channels=tuple(channel_label(data.channels, index) for index in range(len(volumes.channels))),
        map_name=volumes.map_name,
        has_truth=volumes.truth is not None,
        notes=tuple(notes),
    )


def channel_label(names: Sequence[str], index: int) -> str:
    """The name of a channel, or its number from 0 where dataset.json names fewer, as of a colour photograph."""
    return names[index] if index < len(names) else f"channel {index}"
