"""Options of work past one machine: a Ray cluster, jobs of a queue, and several trainings of one command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from nnunet_ext.options.choices import require_choice

JobPlace = Literal["slurm", "local"]
JOB_PLACES: tuple[JobPlace, ...] = get_args(JobPlace)
RAY = "ray"
CORES_PER_WORKER = 4


@dataclass(frozen=True)
class ClusterOptions:
    """A Ray cluster that predicts the cases.

    Attributes:
        address: of the cluster; None takes what `RAY_ADDRESS` names, else a cluster that runs on this machine, else
            starts one for the run.
        cores: CPU cores and threads of each worker; None takes 4, or all of a smaller machine, and on GPUs the
            machine's cores divided by its GPUs.

    Raises:
        ValueError: if there are no cores.
    """

    address: str | None = None
    cores: int | None = None

    def __post_init__(self) -> None:
        if self.cores is not None and self.cores < 1:
            raise ValueError(f"--cluster-cpus must be at least 1; found {self.cores}.")

    @classmethod
    def parse(cls, text: str, cores: int | None = None) -> ClusterOptions:
        """The value of `--cluster`: ray, or ray:ADDRESS.

        Raises:
            ValueError: if it is something else.
        """
        system, colon, address = text.partition(":")
        if system != RAY or (colon and not address):
            raise ValueError(f"--cluster must be ray or ray:ADDRESS; found {text!r}. Write --cluster ray.")
        return cls(address or None, cores)


@dataclass(frozen=True)
class JobOptions:
    """Where a job runs, and what it asks for.

    Attributes:
        place: "slurm", or "local" for processes on this machine, all at once.
        logs: folder of the jobs' output, which every machine sees.
        minutes: time limit. A job that reaches it goes on in the queue where it can continue.
        gpus: GPUs per job.
        cpus: CPU cores per job.
        memory_gb: main memory per job.
        partition: of SLURM; None takes the cluster's default.
        sbatch: other options of `sbatch`, by their long names.

    Raises:
        ValueError: if the place is unknown, or a number is too small.
    """

    place: JobPlace = "slurm"
    logs: Path = Path("nnunet_ext_jobs")
    minutes: int = 1440
    gpus: int = 1
    cpus: int = 4
    memory_gb: int = 32
    partition: str | None = None
    sbatch: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_choice("--submit", self.place, JOB_PLACES)
        for flag, value, least in (
            ("--minutes", self.minutes, 1),
            ("--gpus", self.gpus, 0),
            ("--cpus", self.cpus, 1),
            ("--memory-gb", self.memory_gb, 1),
        ):
            if value < least:
                raise ValueError(f"{flag} must be at least {least}; found {value}.")


@dataclass(frozen=True)
class TrainOptions:
    """Several trainings of one dataset and configuration: every fold of every member.

    Attributes:
        dataset: name or id.
        configuration: 2d, 3d_fullres, ...
        folds: numbers, or "all".
        trainer: its name, without `member<k>` if `members` is given.
        plans: their name.
        members: number of members, each of which trains with the part `member<k>`, k from 0; None trains as named.
        pretrained_weights: as nnU-Net's flag; None starts from random weights.
        resume: whether `--c` was given.
        validate_only: whether `--val` was given.
        flags: nnU-Net's other flags, as typed.

    Raises:
        ValueError: if there is no fold or no member, or a fold is twice there.
    """

    dataset: str
    configuration: str
    folds: Sequence[str]
    trainer: str = "nnUNetTrainer"
    plans: str = "nnUNetPlans"
    members: int | None = None
    pretrained_weights: str | None = None
    resume: bool = False
    validate_only: bool = False
    flags: Sequence[str] = ()

    def __post_init__(self) -> None:
        wrong = [fold for fold in self.folds if fold != "all" and not fold.isdecimal()]
        if wrong or not self.folds or len({*self.folds}) < len(self.folds):
            raise ValueError(
                f"Folds are numbers from 0, or all, each once; found {' '.join(self.folds) or 'none'}. Write "
                f"nnunet_ext train DATASET CONFIGURATION 0 1 2, for example."
            )
        if self.members is not None and self.members < 1:
            raise ValueError(f"--members must be at least 1; found {self.members}.")
