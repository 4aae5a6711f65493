"""Predicts the cases of a folder with the workers of a Ray cluster: the same files and table as one process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from tqdm import tqdm

from nnunet_ext.cluster.case_worker import CaseWorker, WorkerPlan
from nnunet_ext.cluster.hand_out import HandOut
from nnunet_ext.cluster.ray_cluster import Shares
from nnunet_ext.inference.run import RunOutcome
from nnunet_ext.options import OutputOptions
from nnunet_ext.prediction_folder.case_files import remove_leftovers
from nnunet_ext.prediction_folder.cases import Case
from nnunet_ext.prediction_folder.writer import CaseWriter

progress_logger = logging.getLogger("nnunet_ext.progress")


def predict_on_workers(
    ray: Any, plan: WorkerPlan, shares: Shares
) -> Callable[[Sequence[Case], CaseWriter, OutputOptions], RunOutcome]:
    """What predicts cases on the connected cluster, for `EnsembleEngine.predict_from_files`.

    Args:
        ray: the module.
        plan: what each worker is made from.
        shares: how the cluster is divided.
    """
    at_once = 2 if plan.output.prepare_ahead or plan.output.write_behind else 1
    worker_class = ray.remote(CaseWorker).options(**shares.resources, max_concurrency=at_once, max_restarts=0)
    ensemble = replace(plan.ensemble, device=shares.device, allow_tqdm=False)
    start = partial(worker_class.remote, replace(plan, ensemble=ensemble, cores=shares.cores))

    def predict_cases(cases: Sequence[Case], writer: CaseWriter, options: OutputOptions) -> RunOutcome:
        absolute = [with_absolute_paths(case) for case in cases]
        outcome = RunOutcome()
        if not cases:
            return outcome
        hand_out = HandOut(start, min(shares.workers, len(cases)), at_once)
        with (
            tqdm(total=len(cases), disable=not plan.ensemble.allow_tqdm, unit="case") as progress,
            closing(hand_out.outcomes(absolute)) as outcomes,
        ):
            for number, (case, of_case) in enumerate(outcomes, start=1):
                remove_leftovers(case.name, writer.output)
                outcome.failed |= of_case.failed
                outcome.rows |= of_case.rows
                try:
                    writer.record(case, of_case.rows.get(case.name))
                except OSError as error:  # the table could not be written, as on a full disk
                    outcome.fail(case.name, error)
                    outcome.rows.pop(case.name, None)
                progress.update()
                progress_logger.info("case %d of %d: %s", number, len(cases), case.name)
        writer.table.arrange([case.name for case in cases])
        outcome.rows = {case.name: outcome.rows[case.name] for case in cases if case.name in outcome.rows}
        outcome.failed = {case.name: outcome.failed[case.name] for case in cases if case.name in outcome.failed}
        outcome.predicted = list(outcome.rows)
        return outcome

    return predict_cases


def with_absolute_paths(case: Case) -> Case:
    """The same case for a process that stands elsewhere."""
    previous = case.previous_stage
    files = tuple(file.absolute() for file in case.files)
    return replace(case, files=files, previous_stage=None if previous is None else previous.absolute())
