"""The flags that make a job of a command line, and what is printed about the job."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.options import JOB_PLACES, JobOptions

if TYPE_CHECKING:
    from nnunet_ext.cluster.command_job import CommandJob

# What a job asks for unless told otherwise: of a prediction, and of a training, whose augmentation needs the cores.
PREDICTION = JobOptions()
TRAINING = JobOptions(cpus=12, memory_gb=64)
FIELDS = ("submit", "partition", "minutes", "gpus", "cpus", "memory_gb", "sbatch", "job_logs")  # as parsed


def add_submit_flags(parser: argparse._ActionsContainer, default: JobOptions = PREDICTION) -> None:
    """Adds `--submit` and what a job asks for; `default` says how much."""
    job = parser.add_argument_group("job on a cluster (needs nnunet-ext[slurm])")
    job.add_argument(
        "--submit",
        nargs="?",
        const="slurm",
        choices=JOB_PLACES,
        metavar="WHERE",
        help="submit this command as a job instead of running it: slurm (default), or local, a process on this "
        "machine for each job, all at once. A job that reaches its time limit, or loses its machine, continues",
    )
    job.add_argument("--partition", metavar="NAME", help="SLURM's partition (default: the cluster's)")
    numbers = (
        ("--minutes", default.minutes, "time limit"),
        ("--gpus", default.gpus, "GPUs per job"),
        ("--cpus", default.cpus, "CPU cores per job"),
        ("--memory-gb", default.memory_gb, "main memory per job, in GB"),
    )
    for flag, value, meaning in numbers:
        job.add_argument(flag, type=int, metavar="N", help=f"{meaning} (default: {value})")
    job.add_argument(
        "--sbatch",
        action="append",
        metavar="NAME=VALUE",
        help="any other option of sbatch, such as account=heart; repeatable",
    )
    job.add_argument("--job-logs", metavar="FOLDER", help=f"folder of the jobs' logs (default: {default.logs})")


def chosen_job(arguments: argparse.Namespace, default: JobOptions = PREDICTION) -> JobOptions | None:
    """What the flags ask for; None if the command runs here.

    Raises:
        ValueError: if there are flags of a job without `--submit`, or a number is too small.
    """
    given = {
        "minutes": arguments.minutes,
        "gpus": arguments.gpus,
        "cpus": arguments.cpus,
        "memory_gb": arguments.memory_gb,
        "partition": arguments.partition,
        "sbatch": None if arguments.sbatch is None else dict(map(name_and_value, arguments.sbatch)),
        "logs": None if arguments.job_logs is None else Path(arguments.job_logs),
    }
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.submit is None:
        if given:
            flags = ", ".join(f"--{'job-logs' if name == 'logs' else name.replace('_', '-')}" for name in given)
            raise ValueError(f"{flags} asks for something of a job; found no --submit. Add it, or leave them out.")
        return None
    asked_for = {"gpus": default.gpus, "cpus": default.cpus, "memory_gb": default.memory_gb} | given
    return JobOptions(place=arguments.submit, **asked_for)


def name_and_value(text: str) -> tuple[str, str]:
    """Name and value of an option of `sbatch`.

    Raises:
        ValueError: if there is no equals sign between them.
    """
    name, equals, value = text.removeprefix("--").partition("=")
    if not (name and equals):
        raise ValueError(f"--sbatch takes NAME=VALUE, such as account=heart; found {text!r}. Write it so.")
    return name, value


def without_submit_flags(words: Sequence[str]) -> list[str]:
    """A command line without these flags, all other words in their order."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_submit_flags(parser)
    return parser.parse_known_args(list(words))[1]


def submit_this(
    arguments: argparse.Namespace, job: JobOptions, continuing: Sequence[str] = (), parts: int | None = None
) -> int:
    """Submits this command line, or each of its parts, and prints where it runs.

    Args:
        arguments: as parsed; `words` are those that were typed.
        job: what each job asks for.
        continuing: what is added to a command line so that it continues.
        parts: number of parts; None submits the command line as it is.

    Raises:
        ValueError: if a flag of these was abbreviated; see also `submit`.
    """
    from nnunet_ext.cluster.command_job import CommandJob

    words = tuple(without_submit_flags(arguments.words))
    require_no_job(words)
    lines = [words] if parts is None else [(*words, "-part_id", str(part)) for part in range(parts)]
    jobs = [CommandJob(line, (*line, *continuing), folder=Path.cwd(), cpus=job.cpus) for line in lines]
    return submit_jobs(jobs, job, words[0])


def require_no_job(words: Sequence[str]) -> None:
    """Refuses a command line that still asks for a job, which would submit itself again and again.

    Raises:
        ValueError: if a flag of a job was abbreviated.
    """
    from nnunet_ext.cli import build_parser

    left = build_parser().parse_args(list(words))
    if any(getattr(left, name) is not None for name in FIELDS):
        raise ValueError(
            f"The flags of a job must be written in full; found an abbreviated one in {' '.join(words)}. Write "
            f"--submit, --partition and so on."
        )


def submit_jobs(jobs: Sequence[CommandJob], job: JobOptions, command: str) -> int:
    """Submits jobs, and prints the id and the log of each; returns the exit status."""
    from nnunet_ext.cluster.submission import submit

    submitted = submit(jobs, job, f"nnunet_ext {command}")
    print(f"{len(submitted)} {'job' if len(submitted) == 1 else 'jobs'} submitted")
    for each in submitted:
        print(f"  {each.id}: nnunet_ext {' '.join(each.words)}", f"    log: {each.log}", sep="\n")
    return 0
