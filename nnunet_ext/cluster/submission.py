"""Hands command lines to a queue through submitit: SLURM's, or processes of this machine."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ext.cluster.command_job import CommandJob
from nnunet_ext.machine.extras import imported
from nnunet_ext.options import JobOptions

MOST_CONTINUATIONS = 20  # of a job that reaches its time limit again and again
SLURM_PROGRAMS = ("sbatch", "srun")


class SubmissionError(ValueError):
    """What was asked for cannot be a job; the message says why."""


@dataclass(frozen=True)
class SubmittedJob:
    """A job in the queue.

    Attributes:
        id: the queue's; of a local job the process id.
        words: the command line after `nnunet_ext`.
        log: file that its output goes to.
        handle: submitit's own object.
    """

    id: str
    words: tuple[str, ...]
    log: Path
    handle: Any


def submit(jobs: Sequence[CommandJob], options: JobOptions, name: str) -> list[SubmittedJob]:
    """Submits jobs, on SLURM as one array.

    Args:
        jobs: at least one.
        options: where they run, and what each asks for.
        name: of the jobs, as the queue shows it.

    Raises:
        ExtraMissingError: if submitit is not installed.
        SubmissionError: if this machine has no SLURM, or does not know the signals that jobs need.
        RuntimeError: if SLURM refuses the jobs; the message is SLURM's.
    """
    submitit = imported("submitit", extra="slurm", needed_by="--submit")
    require_queue(options)
    options.logs.mkdir(parents=True, exist_ok=True)
    executor = submitit.AutoExecutor(
        folder=options.logs.absolute(),
        cluster=options.place,
        slurm_max_num_timeout=MOST_CONTINUATIONS,
        local_max_num_timeout=MOST_CONTINUATIONS,
    )
    executor.update_parameters(
        name=name,
        timeout_min=options.minutes,
        gpus_per_node=options.gpus or None,  # some clusters refuse to be asked for no GPU
        cpus_per_task=options.cpus,
        mem_gb=options.memory_gb,
        stderr_to_stdout=True,
        slurm_partition=options.partition,
        slurm_additional_parameters=dict(options.sbatch) or None,
    )
    with executor.batch():
        handles = [executor.submit(job) for job in jobs]
    return [
        SubmittedJob(handle.job_id, job.words, Path(handle.paths.stdout), handle)
        for handle, job in zip(handles, jobs, strict=True)
    ]


def require_queue(options: JobOptions) -> None:
    """Refuses a queue that is not there.

    Raises:
        SubmissionError: see `submit`.
    """
    if not hasattr(signal, "SIGUSR2"):
        raise SubmissionError(
            "Jobs need signals of Linux and macOS, by which they go on after their time limit; this system has none. "
            "Leave out --submit."
        )
    missing = [program for program in SLURM_PROGRAMS if not shutil.which(program)]
    if options.place == "slurm" and missing:
        raise SubmissionError(
            f"Jobs go to SLURM by its programs {' and '.join(SLURM_PROGRAMS)}; {' and '.join(missing)} cannot be "
            f"found on this machine. Log in to the cluster, or use --submit local, which starts processes here."
        )
