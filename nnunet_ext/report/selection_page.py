"""A page with the units to annotate: the most uncertain slices of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

import nnunet_ext
from nnunet_ext.files.atomic import atomic_path
from nnunet_ext.report.case_pictures import SlicePicture, draw_slices
from nnunet_ext.report.case_volumes import MAP_WORDS, CaseVolumes, NoSegmentationError, read_volumes
from nnunet_ext.report.data import ReportCase
from nnunet_ext.report.overlays import QUALITIES, legend, uncertainty_scale
from nnunet_ext.report.templates import source_of, template_of
from nnunet_ext.selection.table import box_text
from nnunet_ext.selection.units import Choice, Unit, inside

TEMPLATE = "selection.html.j2"
SLICES = 3  # of a case or patch


@dataclass(frozen=True)
class ShownUnits:
    """What the page shows.

    Attributes:
        choices: in the order in which to annotate.
        map_name: of the map that scored them.
        stack_axis: along which slices are stacked.
        chosen: how many units were chosen.
        units: from how many.
    """

    choices: Sequence[Choice]
    map_name: str
    stack_axis: int
    chosen: int
    units: int


@dataclass(frozen=True)
class UnitCard:
    """One unit as it is shown.

    Attributes:
        rank: from 1.
        case: its name.
        place: which part of the case, in words.
        score: as text.
        label: that it was chosen for; empty if for none.
        pictures: of its slices.
        notes: what is missing.
    """

    rank: int
    case: str
    place: str
    score: str
    label: str
    pictures: tuple[SlicePicture, ...]
    notes: tuple[str, ...]


def write_selection_page(
    shown: ShownUnits,
    cases: Sequence[ReportCase],
    reader: BaseReaderWriter,
    label_names: Mapping[int, str],
    file: Path,
) -> None:
    """Draws the units and writes the page; the file is whole under its name, or the old one stays.

    Args:
        shown: what is shown.
        cases: the files of each unit's case.
        reader: of the dataset.
        label_names: label to name.
        file: the HTML file; its folder must exist.
    """
    cards = cards_of(shown, cases, reader, label_names)
    page = template_of(TEMPLATE).render(
        style=source_of("style.css"),
        version=nnunet_ext.__version__,
        cards=cards,
        chosen=shown.chosen,
        units=shown.units,
        map_name=MAP_WORDS[shown.map_name],
        legend=legend(label_names),
        scale=uncertainty_scale(),
    )
    with atomic_path(file) as temporary:
        temporary.write_text(page, encoding="utf-8")


def cards_of(
    shown: ShownUnits, cases: Sequence[ReportCase], reader: BaseReaderWriter, label_names: Mapping[int, str]
) -> list[UnitCard]:
    """The cards by rank; a case is read once for all its units, and one case at a time."""
    case_of = {choice.unit.case: case for choice, case in zip(shown.choices, cases, strict=True)}
    found: dict[int, UnitCard] = {}
    for name, case in case_of.items():
        volumes: CaseVolumes | None = None
        try:
            volumes = read_volumes(case, reader, shown.stack_axis)
            notes = volumes.notes
        except NoSegmentationError as error:
            notes = (f"No slices: {error}",)
        for rank, choice in enumerate(shown.choices, start=1):
            if choice.unit.case == name:
                pictures = () if volumes is None else draw_unit(choice.unit, volumes, shown.stack_axis)
                found[rank] = card(rank, choice, label_names, pictures, notes)
    return [found[rank] for rank in sorted(found)]


def card(
    rank: int,
    choice: Choice,
    label_names: Mapping[int, str],
    pictures: tuple[SlicePicture, ...],
    notes: tuple[str, ...],
) -> UnitCard:
    """One unit in words."""
    unit = choice.unit
    whole_case = unit.slice is None and all(start == 0 for start, _ in unit.box)
    return UnitCard(
        rank=rank,
        case=unit.case,
        place=f"slice {unit.slice + 1}" if unit.slice is not None else "" if whole_case else box_text(unit.box),
        score=f"{unit.score:.3f}",
        label="" if choice.label is None else label_names.get(choice.label, str(choice.label)),
        pictures=pictures,
        notes=notes,
    )


def draw_unit(unit: Unit, volumes: CaseVolumes, stack_axis: int) -> tuple[SlicePicture, ...]:
    """The most uncertain slices of a unit, most uncertain first; only its own voxels.

    Args:
        unit: with a box on the axes of the reader.
        volumes: of its case, with slices along the first axis.
        stack_axis: which axis of the reader that is.
    """
    box = [*unit.box]
    first = box.pop(stack_axis)
    part = inside((first, *box))
    own = replace(
        volumes,
        segmentation=volumes.segmentation[part],
        channels=tuple(channel[part] for channel in volumes.channels),
        maps={name: values[part] for name, values in volumes.maps.items()},
    )
    chosen = most_uncertain(own)
    drawn = draw_slices(own, {index: [] for index in chosen}, QUALITIES[0])
    total, offset = len(volumes.segmentation), first[0]
    return tuple(replace(one, title=f"slice {one.number + offset} of {total}") for one in drawn)


def most_uncertain(volumes: CaseVolumes) -> list[int]:
    """Slices with the largest sum of the map, the largest first; the middle one without a map."""
    if volumes.uncertainty is None:
        return [len(volumes.segmentation) // 2]
    sums = volumes.uncertainty.reshape(len(volumes.uncertainty), -1).sum(axis=1, dtype=np.float64)
    return np.argsort(-sums, kind="stable")[:SLICES].tolist()
