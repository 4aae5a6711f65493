"""What `nnunet_ext report` does."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunet_ext.calibration.doubts import doubts
from nnunet_ext.calibration.model_calibration import FILE_NAME, Calibration
from nnunet_ext.commands.evaluate import compared_with_truth, dataset_of
from nnunet_ext.evaluation.verdict_check import verdict_check_lines
from nnunet_ext.files.writable import require_writable
from nnunet_ext.options import ReportOptions
from nnunet_ext.prediction_folder.agreement import require_agreement
from nnunet_ext.prediction_folder.provenance import RECORD_NAME, recorded_provenance
from nnunet_ext.report.data import OperatingPoint, gather, not_predicted_text
from nnunet_ext.report.first_cases import first_case_lines
from nnunet_ext.report.page import write_report

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportResult:
    """The result of a report.

    Attributes:
        page: the HTML file.
        first_cases: a table of the cases to open first, as lines of text.
        lines: for the terminal, which images have no prediction, and with ground truth and verdicts how well
            intervals and verdicts did.
        problems: name of a case that could not be compared with its ground truth to what is wrong with it.
    """

    page: Path
    first_cases: list[str]
    lines: list[str]
    problems: dict[str, str] = field(default_factory=dict)


def report_folder(options: ReportOptions) -> ReportResult:
    """Writes the page of a prediction folder.

    Raises:
        FileNotFoundError: if a folder or a file is missing.
        ValueError: if the folder has no cases, or contradicts itself.
    """
    predictions, truths = options.predictions, options.truths
    require_agreement(predictions)
    file = options.page or predictions / "report.html"
    require_writable(file)
    evaluation = None
    if truths is not None:
        dataset = dataset_of([predictions], truths, options.described_by)
        evaluation = compared_with_truth(truths, [predictions], dataset, options.judge)
    calibration = applied_calibration(predictions)
    data = gather(
        predictions,
        images=options.images,
        truth=truths,
        evaluation=evaluation,
        training_rows=calibration.cases if calibration else (),
        judged_column=calibration.confidence if calibration else "",
        operating_point=operating_point(calibration),
        failure_dice=calibration.threshold.failure_dice if calibration else options.failure_dice,
    )
    if calibration is not None:
        data = replace(data, notes=(*data.notes, *(f"Calibration: {doubt}" for doubt in doubts(calibration))))
    write_report(data, file, shown_cases=options.cases)
    lines = [not_predicted_text(data.not_predicted)] if data.not_predicted else []
    lines += verdict_check_lines(data.verdict_check) if data.verdict_check else []
    return ReportResult(file, first_case_lines(data), lines, evaluation.problems if evaluation else {})


def applied_calibration(predictions: Path) -> Calibration | None:
    """The calibration that a folder was predicted with; None if there was none, or its file no longer exists."""
    description = predictions / RECORD_NAME
    run: dict[str, Any] = json.loads(description.read_text(encoding="utf-8")) if description.is_file() else {}
    chosen = run.get("arguments", {}).get("calibrated")
    if not chosen:
        return None
    # a member's file is MODEL/fold_0/checkpoint_final.pth
    file = Path(chosen) if isinstance(chosen, str) else Path(run["members"][0]["file"]).parents[1] / FILE_NAME
    if not file.is_file():
        logger.warning(
            "%s, the calibration that %s was predicted with, does not exist: the page leaves out calibration cases "
            "and operating point.",
            file,
            predictions,
        )
        return None
    calibration = Calibration.load(file)
    applied = recorded_provenance(run).settings.get("calibration")
    if applied is not None and applied != calibration.sha256:
        logger.warning(
            "%s is not the calibration that %s was predicted with: the page leaves out calibration cases and "
            "operating point. Predict into another folder to use it.",
            file,
            predictions,
        )
        return None
    return calibration


def operating_point(calibration: Calibration | None) -> OperatingPoint | None:
    """The confidence above which a verdict can be accept; None without a calibration or without a failure in it."""
    if calibration is None or calibration.threshold.confidence_threshold is None:
        return None
    return OperatingPoint(calibration.confidence, calibration.threshold.confidence_threshold)
