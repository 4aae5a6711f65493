"""Brings a prediction folder up to date: which cases are left, then the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nnunet_ext.inference.run import RunOutcome
from nnunet_ext.options import OutputOptions
from nnunet_ext.prediction_folder.cases import Case
from nnunet_ext.prediction_folder.writer import CaseWriter

PredictCases = Callable[[Sequence[Case], CaseWriter, OutputOptions], RunOutcome]


def complete_folder(
    wanted: Sequence[Case], writer: CaseWriter, options: OutputOptions, predict_cases: PredictCases
) -> RunOutcome:
    """Predicts the cases that are not complete, and finishes the table.

    Args:
        wanted: the cases of this run.
        writer: holds the folder.
        options: whether complete cases are skipped.
        predict_cases: predicts cases, and writes them with their rows.
    """
    writer.clear(wanted)
    complete = [case.name for case in wanted if options.continue_prediction and writer.has(case)]
    outcome = predict_cases([case for case in wanted if case.name not in complete], writer, options)
    outcome.skipped = complete
    writer.table.finish()
    return outcome
