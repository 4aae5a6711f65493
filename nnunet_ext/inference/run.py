"""Predicts many cases; while one is predicted, the next is prepared and the previous one is written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from tqdm import tqdm

from nnunet_ext.error_text import in_words
from nnunet_ext.inference.accumulation.case_frame import PreparedCase
from nnunet_ext.inference.memory_estimate import CaseTooLargeError
from nnunet_ext.input_checks import BadInputError
from nnunet_ext.prediction_folder.case_files import CasePrediction
from nnunet_ext.prediction_folder.cases import Case

MOST_WAITING_FOR_DISK = 2  # predicted cases that are not yet written and take memory


class CaseSink(Protocol):
    """Receives the predicted cases one by one in a thread of its own, for example to write them to files."""

    def write(self, prediction: CasePrediction) -> None:
        """Receives one case; an exception raised here is recorded as the failure of that case."""


Prepare = Callable[[Case], list[PreparedCase]]
Predict = Callable[[Case, list[PreparedCase], tqdm], CasePrediction]

logger = logging.getLogger(__name__)
progress_logger = logging.getLogger("nnunet_ext.progress")  # one line per case, for logs of batch jobs


@dataclass(frozen=True)
class Pace:
    """What runs in parallel to the prediction of a case, and how progress is shown.

    Attributes:
        passes_per_case: steps of the progress bar per case.
        prepare_ahead: prepare the next case in a thread.
        write_behind: pass a case to the sink while the next one is predicted.
        show_progress: show the progress bar.
    """

    passes_per_case: int
    prepare_ahead: bool = True
    write_behind: bool = True
    show_progress: bool = True


@dataclass
class RunOutcome:
    """The outcome of one run for each of its cases.

    Attributes:
        predicted: names of the cases that this run predicted.
        skipped: names of the cases that an earlier run had completed.
        failed: name to error message of the cases that could not be predicted.
        rows: name to row of `cases.csv` of the cases that this run predicted.
        predictions: the results themselves, only if no output folder was given.
    """

    predicted: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    rows: dict[str, dict[str, object]] = field(default_factory=dict)
    predictions: list[CasePrediction] = field(default_factory=list)

    def done(self, case: str, row: dict[str, object]) -> None:
        """Records a case that was predicted and, if there is an output folder, written."""
        self.predicted.append(case)
        self.rows[case] = row

    def fail(self, case: str, error: BaseException) -> None:
        """Records why a case has no result; an error not caused by the input is logged with its traceback."""
        if isinstance(error, (BadInputError, CaseTooLargeError)):
            self.failed[case] = str(error)
        else:
            self.failed[case] = in_words(error)
            logger.error("%s could not be predicted.", case, exc_info=error)


def run_cases(
    cases: Sequence[Case], prepare: Prepare, predict: Predict, sink: CaseSink | None, pace: Pace
) -> RunOutcome:
    """Predicts cases one after the other; one that cannot be predicted does not stop the others.

    Args:
        cases: the cases, in the order of prediction.
        prepare: checks and preprocesses a case.
        predict: predicts a prepared case, advancing the progress bar by `pace.passes_per_case`.
        sink: receives the results; None keeps them in the outcome.
        pace: what runs in parallel to the prediction.
    """
    outcome = RunOutcome()
    waiting: list[tuple[str, Future[dict[str, object]]]] = []
    with (
        tqdm(total=len(cases) * pace.passes_per_case, disable=not pace.show_progress, unit="member") as progress,
        ThreadPoolExecutor(max_workers=1) as disk,
        closing(_prepared(cases, prepare, ahead=pace.prepare_ahead)) as prepared_cases,
    ):
        for number, (case, prepared) in enumerate(prepared_cases, start=1):
            progress.set_description(f"case {number} of {len(cases)}: {case.name}")
            progress_logger.info("case %d of %d: %s", number, len(cases), case.name)
            try:
                prediction = predict(case, prepared(), progress)
            except Exception as error:  # noqa: BLE001 - one bad case must not end an overnight batch
                outcome.fail(case.name, error)
                continue
            if sink is None:
                outcome.predictions.append(prediction)
                outcome.done(case.name, prediction.row)
                continue
            waiting.append((case.name, disk.submit(written_row, sink, prediction)))
            while len(waiting) > (MOST_WAITING_FOR_DISK if pace.write_behind else 0):
                _collect(*waiting.pop(0), outcome)
        for name, written in waiting:
            _collect(name, written, outcome)
    return outcome


def _result(prepared: Future[list[PreparedCase]]) -> list[PreparedCase]:
    """What `prepare` returned or raised; an image reader that calls sys.exit() must not end the run."""
    error = prepared.exception()
    if isinstance(error, SystemExit):
        raise RuntimeError(f"Preparing the case ended with SystemExit: {error}.") from error
    return prepared.result()


def written_row(sink: CaseSink, prediction: CasePrediction) -> dict[str, object]:
    """Passes a case to the sink and returns its row, so that its volumes can be freed."""
    sink.write(prediction)
    return prediction.row


def _collect(name: str, written: Future[dict[str, object]], outcome: RunOutcome) -> None:
    error = written.exception()  # waits
    if isinstance(error, (Exception, SystemExit)):
        outcome.fail(name, error)
    else:
        outcome.done(name, written.result())


def _prepared(
    cases: Sequence[Case], prepare: Prepare, *, ahead: bool
) -> Generator[tuple[Case, Callable[[], list[PreparedCase]]], None, None]:
    """Each case with a function that returns the prepared case, or raises what `prepare` raised."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        upcoming = [thread.submit(prepare, case) for case in cases[:1]]
        for position, case in enumerate(cases):
            current = upcoming.pop()
            current.exception()  # waits: the next one starts only then, so that at most two images are in memory
            following = cases[position + 1 : position + 2]
            if ahead:
                upcoming = [thread.submit(prepare, next_case) for next_case in following]
            yield case, partial(_result, current)
            if not ahead:
                upcoming = [thread.submit(prepare, next_case) for next_case in following]
