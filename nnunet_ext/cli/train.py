"""`nnunet_ext train`: nnUNetv2_train's own flags, and those of several members, folds and jobs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from nnunet_ext import discovery
from nnunet_ext.cli.command import INTERRUPTED, Command
from nnunet_ext.cli.submit_flags import TRAINING, add_submit_flags, chosen_job, submit_jobs
from nnunet_ext.options import JobOptions, TrainOptions

PROGRAM = "nnunet_ext train"
BARE_FLAGS = ("--npz", "--val_best", "--disable_checkpointing")  # nnU-Net's without a value, besides --c and --val
EXAMPLE = """example:
  $ nnunet_ext train 123 2d 0 -tr nnUNetTrainerCyclical
  ...
  2026-01-31 12:00:00: Epoch 320
  2026-01-31 12:00:00: Current learning rate: 0.00756
  2026-01-31 12:01:40: Sampled the weights of cycle 0: checkpoint_c0_e0320.pth
  $ nnunet_ext train 123 2d 0 1 -tr nnUNetTrainer --members 2 --submit
  4 jobs submitted
    4711_0: nnunet_ext train 123 2d 0 -tr nnUNetTrainer_member0 -p nnUNetPlans
      log: nnunet_ext_jobs/4711_0_0_log.out
    ..."""


def train_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that are not nnU-Net's."""
    parser.add_argument(
        "--members",
        type=int,
        metavar="N",
        help="train N members of a deep ensemble: each fold with the trainer's parts member0, member1, ...; several "
        "folds and members train one after another, or with --submit each as a job",
    )
    add_submit_flags(parser, TRAINING)


def train(arguments: Sequence[str]) -> int:
    """`nnUNetv2_train` with the variable set, or several trainings; flags and messages are nnU-Net's otherwise."""
    own = argparse.ArgumentParser(PROGRAM, usage=argparse.SUPPRESS, add_help=False, allow_abbrev=False)
    train_flags(own)
    if "-h" in arguments or "--help" in arguments:
        print("nnunet_ext train is nnUNetv2_train with nnUNet_extTrainer set, for one fold or several.\n")
        print(f"{EXAMPLE}\n\nIts own flags:\n{own.format_help()}\nThose of nnUNetv2_train:\n")
        return train_one(arguments)
    ours, stock = own.parse_known_args(list(arguments))
    try:
        found = stock_words(stock)
        job = chosen_job(ours, replace(TRAINING, gpus=found.num_gpus or TRAINING.gpus))
        alone = job is None and ours.members is None and len(found.words) <= 3
        if not alone:
            return train_several(train_options(stock, ours.members), job)
    except KeyboardInterrupt:
        return interrupted()
    except (OSError, ValueError, RuntimeError) as error:
        print(f"nnunet_ext train: {error}", file=sys.stderr)
        return 1
    return train_one(stock)


def interrupted() -> int:
    """Says how to go on after Ctrl-C; returns the exit status."""
    print("\nnnunet_ext train: interrupted. Continue from the last checkpoint with --c.", file=sys.stderr)
    return INTERRUPTED


def train_one(arguments: Sequence[str]) -> int:
    """`nnUNetv2_train` in this process."""
    discovery.activate()
    from nnunetv2.run.run_training import run_training_entry

    from nnunet_ext.files.checkpoints import CheckpointError
    from nnunet_ext.trainers.names import TrainerNameError
    from nnunet_ext.trainers.pretrained_weights import PretrainedWeightsError, fitting_weights

    # as nnU-Net's own entry point sets it: several threads for compiling do not help and can cause problems
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    try:
        with fitting_weights(arguments) as fitting:
            sys.argv = ["nnUNetv2_train", *fitting]
            run_training_entry()
    except KeyboardInterrupt:
        return interrupted()
    except (
        TrainerNameError,
        PretrainedWeightsError,
        CheckpointError,
    ) as error:  # all other errors are nnU-Net's and keep their traceback
        print(f"nnunet_ext train: {error}", file=sys.stderr)
        return 1
    return 0


def train_several(options: TrainOptions, job: JobOptions | None) -> int:
    """Trains every fold of every member, here or as jobs."""
    from nnunet_ext.commands.train import train_one_after_another, training_jobs, trainings

    planned = trainings(options)
    if job is not None:
        return submit_jobs(training_jobs(planned, job.cpus), job, "train")
    failed = train_one_after_another(planned)
    print(f"{len(planned) - len(failed)} of {len(planned)} trainings are complete")
    for training in failed:
        print(f"  failed: nnunet_ext {' '.join(training.words)}", file=sys.stderr)
    return 1 if failed else 0


def stock_words(arguments: Sequence[str]) -> argparse.Namespace:
    """nnUNetv2_train's arguments by name: `words` are its positional ones, `flags` those without a value."""
    parser = argparse.ArgumentParser(PROGRAM, add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("-tr", default=TrainOptions.trainer)
    parser.add_argument("-p", default=TrainOptions.plans)
    for name in ("-pretrained_weights", "-device"):
        parser.add_argument(name)
    parser.add_argument("-num_gpus", type=int)
    for name in ("--c", "--val", *BARE_FLAGS):
        parser.add_argument(name, action="store_true")
    found, others = parser.parse_known_intermixed_args(list(arguments))
    found.flags = [*(flag for flag in BARE_FLAGS if getattr(found, flag.removeprefix("--"))), *others]
    return found


def train_options(arguments: Sequence[str], members: int | None) -> TrainOptions:
    """Several trainings as options.

    Raises:
        ValueError: if dataset, configuration or fold is missing, or wrong.
    """
    stock = stock_words(arguments)
    if len(stock.words) < 3:
        raise ValueError(
            f"A training needs a dataset, a configuration and one fold or several; found "
            f"{' '.join(stock.words) or 'none of them'}. Write nnunet_ext train 123 3d_fullres 0 1 2, for example."
        )
    valued = {"-num_gpus": stock.num_gpus, "-device": stock.device}
    given = [word for flag, value in valued.items() if value is not None for word in (flag, str(value))]
    dataset, configuration, *folds = stock.words
    return TrainOptions(
        dataset=dataset,
        configuration=configuration,
        folds=tuple(folds),
        trainer=stock.tr,
        plans=stock.p,
        members=members,
        pretrained_weights=stock.pretrained_weights,
        resume=stock.c,
        validate_only=stock.val,
        flags=(*given, *stock.flags),
    )


COMMAND = Command(
    "train",
    "nnUNetv2_train with nnUNet_extTrainer set, so that it finds the trainers; also several folds and members",
    train_flags,
    lambda arguments: train([]),
    EXAMPLE,
)
