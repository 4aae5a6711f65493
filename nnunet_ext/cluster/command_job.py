"""One command line as a job: what the queue runs, and how it goes on after an interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunet_ext.files.fold_folder import latest_checkpoint
from nnunet_ext.machine.extras import imported

RESTARTS = "SLURM_RESTART_COUNT"  # set by SLURM in a job that was put back into the queue
AUGMENTATION = "nnUNet_n_proc_DA"  # nnU-Net's number of processes for augmentation


@dataclass(frozen=True)
class CommandJob:
    """Runs `nnunet_ext` with these words in a process of its own.

    A job that reached its time limit, or whose machine was taken away, is started again by the queue; then it
    continues instead of beginning again.

    Attributes:
        words: the command line after `nnunet_ext`.
        continuing: the command line that continues; the same where beginning again is all there is.
        checkpoints: folder of nnU-Net's checkpoints, without one of which a training cannot continue and begins
            again; None for a command that always can.
        folder: where the command was typed.
        cpus: of the job.
        restarted: whether the job is started again.
        program: what takes the words.
    """

    words: tuple[str, ...]
    continuing: tuple[str, ...]
    checkpoints: Path | None = None
    folder: Path = Path()
    cpus: int = 1
    restarted: bool = False
    program: tuple[str, ...] = (sys.executable, "-m", "nnunet_ext")

    def __call__(self) -> None:
        """Runs the command.

        Raises:
            subprocess.CalledProcessError: if its exit status is not 0; the queue then counts the job as failed.
        """
        restarted = self.restarted or int(os.environ.get(RESTARTS, 0)) > 0
        words = self.continuing if restarted and self._can_continue() else self.words
        print("nnunet_ext", *words, flush=True)  # noqa: T201 - into the job's log
        subprocess.run(
            [*self.program, *words],
            cwd=self.folder,
            env={AUGMENTATION: str(self.cpus), **os.environ},
            check=True,
            preexec_fn=_ignore_time_limit,
        )

    def checkpoint(self) -> Any:
        """What submitit puts back into the queue shortly before the time limit, a `DelayedSubmission`."""
        helpers = imported("submitit.helpers", extra="slurm", needed_by="--submit")
        return helpers.DelayedSubmission(replace(self, restarted=True))

    def _can_continue(self) -> bool:
        return self.checkpoints is None or latest_checkpoint(self.checkpoints) is not None


def _ignore_time_limit() -> None:
    """SLURM warns every process of a job, and the signal would end the command before submitit acts on it."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
