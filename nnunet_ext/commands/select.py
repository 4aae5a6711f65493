"""What `nnunet_ext select` does: ranks what to annotate next, from the predictions of unlabelled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_ext.commands.selection_features import FeatureSource
from nnunet_ext.commands.selection_pool import Pool
from nnunet_ext.evaluation.summary import write_table
from nnunet_ext.files.atomic import as_read_back, write_json
from nnunet_ext.files.writable import require_writable
from nnunet_ext.options import SelectOptions
from nnunet_ext.prediction_folder.cases import Case, find_cases
from nnunet_ext.report.label_names import label_names
from nnunet_ext.report.selection_page import ShownUnits, write_selection_page
from nnunet_ext.selection.foreground_random import foreground_random
from nnunet_ext.selection.k_centre import k_centre
from nnunet_ext.selection.power import power
from nnunet_ext.selection.table import TABLE_NAME, row_of
from nnunet_ext.selection.top import top
from nnunet_ext.selection.units import Choice, Unit

PAGE_NAME = "selected.html"
RECORD_NAME = "selection.json"


@dataclass(frozen=True)
class Selection:
    """What was selected.

    Attributes:
        table: the file.
        page: the file; None if none was asked for.
        choices: in the order in which to annotate.
        units: from how many they were chosen.
        cases: in how many cases these are.
        label_names: label to name.
    """

    table: Path
    page: Path | None
    choices: Sequence[Choice]
    units: int
    cases: int
    label_names: Mapping[int, str]


def select_units(options: SelectOptions, images: Mapping[str, Case] | None = None) -> Selection:
    """Writes the table, the record of how it came about, and the page.

    Args:
        options: of the command.
        images: case to its image files; None looks for them where the options or the predictions say.

    Raises:
        FileNotFoundError: if predictions, maps, images or model are not there.
        DisagreementError, NotComparableError: if a file cannot be read, or the folder contradicts itself.
        ValueError: if nothing is left to select, or the model has no features to compare.
    """
    require_writable(options.output / TABLE_NAME, "Choose another folder with -o.")
    pool = Pool.open(options)
    if options.labelled is not None:
        find_cases(options.labelled, pool.dataset.file_ending)
    units = pool.units()
    images = pool.images() if images is None else images
    choices = chosen(units, pool, images)
    names = label_names(pool.dataset_json)
    rows = [
        row_of(rank, choice, names, files_of(choice.unit.case, pool, images))
        for rank, choice in enumerate(choices, start=1)
    ]
    write_table(rows, options.output / TABLE_NAME)
    write_json(record_of(pool, len(units)), options.output / RECORD_NAME)
    page = None
    if options.shown:
        page = options.output / PAGE_NAME
        shown = ShownUnits(choices[: options.shown], options.score.by, pool.stack_axis, len(choices), len(units))
        write_selection_page(shown, [pool.report_case(choice.unit.case, images) for choice in shown.choices],
                             pool.dataset.reader, names, page)  # fmt: skip
    return Selection(
        options.output / TABLE_NAME, page, choices, len(units), len({unit.case for unit in units}), names
    )


def chosen(units: Sequence[Unit], pool: Pool, images: Mapping[str, Case]) -> list[Choice]:
    """The units that the strategy chooses."""
    strategy = pool.options.strategy
    generator = np.random.default_rng(strategy.seed)
    if strategy.name == "power":
        return power(
            units,
            strategy.number,
            beta=strategy.beta,
            stratified=strategy.stratified,
            generator=generator,
            most_per_case=strategy.most_per_case,
        )
    if strategy.name == "random":
        return foreground_random(
            units,
            strategy.number,
            stratified=strategy.stratified,
            generator=generator,
            most_per_case=strategy.most_per_case,
        )
    if strategy.name == "k-centre":
        candidates = top(units, strategy.candidates * strategy.number, strategy.most_per_case)
        source = FeatureSource.open(pool)
        centres = source.of_labelled()
        features = source.of_units([candidate.unit for candidate in candidates], images)
        source.save(candidates, features)
        return k_centre(candidates, features, strategy.number, centres)
    return top(units, strategy.number, strategy.most_per_case)


def files_of(case: str, pool: Pool, images: Mapping[str, Case]) -> dict[str, str]:
    """The files of a case for the table; images are empty where they are not found."""
    found = images[case].files if case in images else ()
    return {"segmentation": str(pool.segmentation_file(case)), "images": ";".join(map(str, found))}


def record_of(pool: Pool, units: int) -> dict[str, Any]:
    """Content of `selection.json`: the options, and the members that predicted."""
    options = as_read_back(pool.options)
    members = [
        {"name": member.get("name"), "sha256": member.get("sha256")} for member in pool.record.get("members", [])
    ]
    return {"options": options, "units": units, "members": members}
