"""What `nnunet_ext train` does with several members and folds: the trainings, one after another or as jobs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunet_ext.cluster.command_job import CommandJob
from nnunet_ext.cluster.submission import SubmissionError
from nnunet_ext.commands.training_cases import splits_file, variable_folder
from nnunet_ext.files.fold_folder import latest_checkpoint
from nnunet_ext.options import TrainOptions
from nnunet_ext.trainers.names import resembles_ours, trainer_class


@dataclass(frozen=True)
class Training:
    """One fold of one member.

    Attributes:
        options: those of the whole command.
        trainer: name with the member's part.
        fold: number, or "all".
    """

    options: TrainOptions
    trainer: str
    fold: str

    @property
    def words(self) -> tuple[str, ...]:
        """The command line after `nnunet_ext`.

        With `--c` a fold without a checkpoint begins, as in nnU-Net, and with the weights that all folds begin with.
        """
        options = self.options
        if options.resume and (options.validate_only or latest_checkpoint(self.folder) is not None):
            return (*self._words, "--c")
        weights = options.pretrained_weights
        return self._words if weights is None else (*self._words, "-pretrained_weights", weights)

    @property
    def continuing(self) -> tuple[str, ...]:
        """The command line that continues; nnU-Net takes no `-pretrained_weights` with it."""
        return self.words if self.options.validate_only else (*self._words, "--c")

    @property
    def folder(self) -> Path:
        """Where nnU-Net keeps its checkpoints."""
        options = self.options
        dataset = maybe_convert_to_dataset_name(options.dataset)
        model = f"{self.trainer}__{options.plans}__{options.configuration}"
        return variable_folder("nnUNet_results") / dataset / model / f"fold_{self.fold}"

    @property
    def _words(self) -> tuple[str, ...]:
        options = self.options
        start = ("train", options.dataset, options.configuration, self.fold, "-tr", self.trainer, "-p", options.plans)
        return (*start, *options.flags, *(["--val"] if options.validate_only else []))


def trainings(options: TrainOptions) -> list[Training]:
    """Every fold of every member, member by member.

    Raises:
        TrainerNameError: if there is no such trainer, or it has the part `member<k>` already.
    """
    names = [options.trainer]
    if options.members is not None:
        names = [f"{options.trainer}_member{member}" for member in range(options.members)]
    for name in names:
        if options.members is not None or resembles_ours(name):  # not a trainer of the user's own
            trainer_class(name)
    return [Training(options, name, fold) for name in names for fold in options.folds]


def train_one_after_another(planned: Sequence[Training]) -> list[Training]:
    """Runs each training in a process of its own; one that fails does not stop the others.

    Returns:
        The trainings that failed.
    """
    return [
        training
        for training in planned
        if subprocess.run([sys.executable, "-m", "nnunet_ext", *training.words], check=False).returncode
    ]


def training_jobs(planned: Sequence[Training], cpus: int) -> list[CommandJob]:
    """The trainings as jobs.

    Args:
        planned: the trainings.
        cpus: of each job.

    Raises:
        SubmissionError: if jobs would train over finished work, or write `splits_final.json` at the same time.
        ValueError: if a variable of nnU-Net is not set, or there is no such dataset.
    """
    options = planned[0].options
    if not (options.resume or options.validate_only):
        for training in planned:
            require_empty(training.folder)
    splits = splits_file(maybe_convert_to_dataset_name(options.dataset))
    if sum(training.fold != "all" for training in planned) > 1 and not splits.is_file():
        raise SubmissionError(
            f"Trainings that start together need splits_final.json, which each would write; {splits} does not exist. "
            f"Write it first, by patient: nnunet_ext splits -d {options.dataset} --patients '(.+)', where (.+) makes "
            f"each case its own patient."
        )
    return [
        CommandJob(training.words, training.continuing, checkpoints=training.folder, folder=Path.cwd(), cpus=cpus)
        for training in planned
    ]


def require_empty(folder: Path) -> None:
    """Refuses to train over a checkpoint, which a job that is started again would take for its own.

    Raises:
        SubmissionError: if the folder holds a checkpoint.
    """
    if latest_checkpoint(folder) is not None:
        raise SubmissionError(
            f"A job begins a training without checkpoints, or continues one; {folder} holds checkpoints. Add --c to "
            f"continue, or remove that folder to train again."
        )
