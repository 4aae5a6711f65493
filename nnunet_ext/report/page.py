"""The page itself: one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import os
from collections import Counter

import nnunet_ext
from nnunet_ext.evaluation.verdict_check import VERDICTS, verdict_check_lines
from nnunet_ext.files.atomic import atomic_path
from nnunet_ext.report.cards import Card, card
from nnunet_ext.report.data import ReportData
from nnunet_ext.report.figures import evaluation_figures, histogram_figures, training_figures, weight_figures
from nnunet_ext.report.numbers import column_words, fixed
from nnunet_ext.report.overlays import legend, uncertainty_scale
from nnunet_ext.report.tables import (
    CALIBRATION_METRICS,
    CASE_METRICS,
    Table,
    case_table,
    detection_table,
    map_table,
    structure_table,
    summary_table,
)
from nnunet_ext.report.templates import source_of, template_of
from nnunet_ext.report.volumes import PICTURE_BYTES

TEMPLATE = "template.html.j2"
MOST_MEMBERS = 5  # named one by one
SYMBOLS = {"accept": "✓", "review": "!", "reject": "✕"}


def write_report(data: ReportData, file: str | os.PathLike[str], *, shown_cases: int = 12) -> None:
    """Draws the worst cases and writes the page; the file is whole under its name, or the old one stays.

    Args:
        data: of `gather`.
        file: the HTML file; its folder must exist.
        shown_cases: how many of the worst cases get a card with slices.

    Raises:
        ValueError: if `shown_cases` is below 0.
    """
    if shown_cases < 0:
        raise ValueError(f"The number of cases with slices is 0 or more; found {shown_cases}.")
    worst = data.cases[:shown_cases]
    budget = PICTURE_BYTES // max(len(worst), 1)
    page = render(data, [card(rank, case, data, budget) for rank, case in enumerate(worst, start=1)])
    with atomic_path(file) as temporary:
        temporary.write_text(page, encoding="utf-8")


def render(data: ReportData, cards: list[Card]) -> str:
    """The HTML of the page."""
    style, sorting, viewer = map(source_of, ("style.css", "sorting.js", "viewer.js"))
    return template_of(TEMPLATE).render(
        style=style,
        scripts=(sorting, viewer) if cards else (sorting,),
        version=nnunet_ext.__version__,
        data=data,
        tiles=tiles(data),
        about=about(data),
        order=column_words(data.order),
        cards=cards,
        symbols=SYMBOLS,
        legend=legend(data.label_names),
        scale=uncertainty_scale(),
        case_table=case_table(data),
        evaluation_tables=evaluation_tables(data),
        verdict_check=verdict_check_lines(data.verdict_check) if data.verdict_check else [],
        evaluation_figures=evaluation_figures(data),
        histograms=histogram_figures(data),
        trainings=training_figures(data),
        weight_maps=weight_figures(data),
        missing_models=[model.name for model in data.models if not model.found],
    )


def tiles(data: ReportData) -> list[tuple[str, str, str]]:
    """The big numbers: number, what it counts, and the verdict that colours it."""
    counts = Counter(case.verdict for case in data.cases)
    found = [(str(counts[verdict]), verdict, verdict) for verdict in VERDICTS] if data.calibrated else []
    if data.calibrated and counts[""]:
        found.append((str(counts[""]), "without verdict", ""))
    if not data.calibrated:
        found = [(str(len(data.cases)), "case" if len(data.cases) == 1 else "cases", "")]
    dice = [case.dice for case in data.cases if case.dice == case.dice]
    if dice:
        found.append((fixed(sum(dice) / len(dice), 2), "mean Dice", ""))
    return found


def about(data: ReportData) -> list[tuple[str, str]]:
    """What was predicted with what."""
    facts = [("Cases", str(len(data.cases)))]
    datasets = dict.fromkeys(model.dataset for model in data.models if model.dataset)
    if datasets:
        facts.append(("Dataset", ", ".join(datasets)))
    if data.models:
        facts.append(("Model", ", ".join(model.name for model in data.models)))
    if data.members:
        names = [str(member.get("name", "")) for member in data.members]
        shown = names if len(names) <= MOST_MEMBERS else [*names[: MOST_MEMBERS - 1], f"… {names[-1]}"]
        text = f"{len(names)}: {', '.join(shown)}"
        facts.append(("Members", text))
    if data.label_names:
        facts.append(("Labels", ", ".join(name for _, name in sorted(data.label_names.items()))))
    return facts


def evaluation_tables(data: ReportData) -> list[Table]:
    """The tables of an evaluation, without those that have no row."""
    evaluation = data.evaluation
    if evaluation is None or not evaluation.cases:
        return []
    tables = [
        structure_table(evaluation),
        summary_table("Per case", CASE_METRICS, evaluation),
        summary_table("Calibration of the probabilities", CALIBRATION_METRICS, evaluation),
        detection_table(data),
        map_table(evaluation),
    ]
    return [table for table in tables if table is not None]
