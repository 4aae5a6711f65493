"""Hands cases to the workers of a Ray cluster, and hands them out again when a worker is lost.

Ray finds a machine for each worker and starts its process; here is only which worker gets which case.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nnunet_ext.error_text import in_words
from nnunet_ext.inference.run import RunOutcome
from nnunet_ext.machine.extras import imported
from nnunet_ext.prediction_folder.cases import Case

MOST_LOSSES = 10  # of workers with the same case, which is then given up
MOST_LOST_STARTS = 3  # of one worker in a row

logger = logging.getLogger(__name__)


class ClusterError(RuntimeError):
    """The cluster cannot predict; the message says why."""


@dataclass
class Worker:
    """A worker's place in the cluster, filled again when its process is lost.

    Attributes:
        actor: Ray's handle of its process.
        loading: Ray's reference to the end of loading; None once the models are loaded.
        cases: Ray's references to the cases that it has.
        lost_starts: processes lost in a row before the models were loaded.
    """

    actor: Any
    loading: Any
    cases: dict[Any, Case] = field(default_factory=dict)
    lost_starts: int = 0


class HandOut:
    """Cases on their way through the workers.

    A case whose worker is lost is handed out again, from then on as the only case of its worker: so one that needs
    too much memory takes no other one with it, and is given up after `most_losses` losses.

    Args:
        start: starts a process, and returns Ray's handle of it, which has the methods of `CaseWorker`.
        workers: their number.
        at_once: most cases that a worker has.
        most_losses: of workers with the same case.
    """

    def __init__(self, start: Callable[[], Any], workers: int, at_once: int, most_losses: int = MOST_LOSSES) -> None:
        self._ray = imported("ray", extra="ray", needed_by="--cluster ray")
        self._start = start
        self._at_once = at_once
        self._most_losses = most_losses
        self._workers = [self._started() for _ in range(workers)]
        self._losses: Counter[str] = Counter()
        self._waiting: deque[Case] = deque()

    def outcomes(self, cases: Sequence[Case]) -> Generator[tuple[Case, RunOutcome], None, None]:
        """Predicts cases; yields each with its outcome, in the order in which they end. Then the workers end.

        Raises:
            ClusterError: if no worker is left that can load the models.
        """
        self._waiting.extend(cases)
        left = len(cases)
        try:
            while left:
                self._hand_out()
                references = [reference for worker in self._workers for reference in self._pending(worker)]
                (first, *_), _ = self._ray.wait(references, num_returns=1)
                for case, outcome in self._collected(first):
                    left -= 1
                    yield case, outcome
        finally:  # those that wait for a machine as well, or they would take the place of the next run's
            for worker in self._workers:
                self._ray.kill(worker.actor)

    def _hand_out(self) -> None:
        """Gives the waiting cases to workers that have room, evenly."""
        while self._waiting:
            alone = self._losses[self._waiting[0].name] > 0
            free = [worker for worker in self._workers if self._has_room(worker, alone=alone)]
            if not free:
                return
            worker, case = min(free, key=lambda each: len(each.cases)), self._waiting.popleft()
            worker.cases[worker.actor.predict.remote(case)] = case

    def _has_room(self, worker: Worker, *, alone: bool) -> bool:
        if worker.loading is not None or (alone and worker.cases):
            return False
        is_suspect = any(self._losses[case.name] for case in worker.cases.values())
        return not is_suspect and len(worker.cases) < self._at_once

    def _collected(self, reference: Any) -> Iterator[tuple[Case, RunOutcome]]:
        """What a reference has led to: the outcome of a case, a loaded or a lost worker."""
        worker = next(worker for worker in self._workers if reference in self._pending(worker))
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if reference == worker.loading:
                self._cannot_load(worker, in_words(error.cause))
            else:
                case = worker.cases.pop(reference)
                yield case, RunOutcome(failed={case.name: in_words(error.cause)})
        except self._ray.exceptions.RayError as error:
            yield from self._lost(worker, error)
        else:
            if reference == worker.loading:
                worker.loading, worker.lost_starts = None, 0
                logger.info("A worker has loaded the models: process %d on %s.", *result)
            else:
                yield worker.cases.pop(reference), result

    def _lost(self, worker: Worker, error: Exception) -> Iterator[tuple[Case, RunOutcome]]:
        """Fills the place of a lost worker, and hands its cases out again or gives them up."""
        logger.info("A worker was lost: %s", str(error))  # the error itself would keep its actor
        self._ray.kill(worker.actor)  # it may have been out of reach only
        if worker.loading is not None:
            worker.lost_starts += 1
            if worker.lost_starts >= MOST_LOST_STARTS:
                last = str(error).strip().rpartition("\n")[2]
                self._cannot_load(worker, f"it ended {MOST_LOST_STARTS} times while it loaded the models ({last})")
                return
        cases = list(worker.cases.values())
        fresh = self._started()
        worker.actor, worker.loading, worker.cases = fresh.actor, fresh.loading, {}
        for case in reversed(cases):
            self._losses[case.name] += 1
            if self._losses[case.name] < self._most_losses:
                self._waiting.appendleft(case)
            else:
                yield case, given_up(case, self._most_losses)

    def _cannot_load(self, worker: Worker, reason: str) -> None:
        """Goes on without a worker.

        Raises:
            ClusterError: if it was the last one.
        """
        self._workers.remove(worker)
        self._ray.kill(worker.actor)
        if not self._workers:
            raise ClusterError(
                f"A cluster needs one worker that loads the models; found none that could: {reason}. Every machine "
                f"must see the model folders, and have this environment and enough memory."
            )
        logger.warning("A worker could not load the models, the others go on: %s", reason)

    def _pending(self, worker: Worker) -> list[Any]:
        return [*([] if worker.loading is None else [worker.loading]), *worker.cases]

    def _started(self) -> Worker:
        actor = self._start()
        return Worker(actor, actor.load.remote())


def given_up(case: Case, losses: int) -> RunOutcome:
    """The outcome of a case that has lost so many workers."""
    return RunOutcome(
        failed={
            case.name: f"A case may lose its worker {losses - 1} times; {case.name} has lost {losses}. It "
            f"may need more memory than a worker has: predict it by itself without --cluster."
        }
    )
