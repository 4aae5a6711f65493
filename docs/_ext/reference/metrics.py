"""The figures of an evaluation, from the tables that the evaluation itself goes by."""

from __future__ import annotations

from nnunet_ext.evaluation.case_columns import CASE_COLUMNS
from nnunet_ext.evaluation.structure_metrics import STRUCTURE_METRICS, Better
from reference.markdown import as_markdown, code, table

SIGNS: dict[Better | None, str] = {"higher": "↑", "lower": "↓", "closer to 0": "→ 0", None: ""}


def structure_columns() -> str:
    """`metrics.csv`: a row per column."""
    rows = [
        [code(metric.column), SIGNS[metric.better], metric.values, as_markdown(metric.meaning)]
        for metric in STRUCTURE_METRICS
    ]
    return table(["column", "good", "values", "meaning"], rows)


def case_columns() -> str:
    """`case_metrics.csv`: a row per column."""
    rows = [
        [code(row.column), SIGNS[row.better], row.values, as_markdown(row.when), as_markdown(row.meaning)]
        for row in CASE_COLUMNS
    ]
    return table(["column", "good", "values", "there if", "meaning"], rows)


def absent_structures() -> str:
    """What each figure of a structure is where neither truth nor prediction has it."""
    rows = [
        [code(metric.column), "not defined", f"{metric.perfect:g}"]
        for metric in STRUCTURE_METRICS
        if metric.perfect is not None
    ]
    return table(["column", "`--absent leave-out`", "`--absent perfect`"], rows)
