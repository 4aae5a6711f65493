"""The flags of `predict` and `calibrate` that define an ensemble and where it runs."""

from __future__ import annotations

import argparse
import logging

from nnunet_ext.cli.model_flags import add_model_flags, chosen_folds
from nnunet_ext.cli.progress_bar_flag import add_progress_bar_flag
from nnunet_ext.cli.weights_flag import class_weights, model_weights
from nnunet_ext.options import (
    AVERAGES,
    DEVICES,
    EARLY_EXITS,
    PRECISIONS,
    RUNTIME_NAMES,
    TTA_SETS,
    AdaptOptions,
    EnsembleOptions,
    TestTimeTransforms,
)


def add_ensemble_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of models, members and device."""
    model = add_model_flags(parser)
    model.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: all folds with members)")

    ensemble = parser.add_argument_group("ensemble")
    add_member_flags(ensemble)
    add_average_flags(ensemble)
    add_pass_flags(ensemble)
    add_machine_flags(parser)


def add_member_flags(ensemble: argparse._ActionsContainer) -> None:
    """Adds the flags that choose the checkpoints."""
    ensemble.add_argument(
        "--members",
        default=None,
        metavar="RULE",
        help="which checkpoints of each fold: final (default), best, samples, last-cycle, or a file pattern such as "
        "'checkpoint_c2_*.pth'; with :N the latest N (samples: spread evenly over the cycles), with :N:S every S-th; "
        "or mc-dropout:N, N draws (10) of the final checkpoint with dropout on, for MCDropout and Streaming "
        "trainers. A pattern never takes checkpoint_posterior.pth, which is an ensemble in itself",
    )
    ensemble.add_argument("-chk", metavar="FILE", help="the same as --members FILE, as in stock nnU-Net")


def add_average_flags(ensemble: argparse._ActionsContainer) -> None:
    """Adds the flags of how members are put together."""
    ensemble.add_argument(
        "--average",
        choices=AVERAGES,
        default="probabilities",
        help="probabilities (default) is the Bayesian model average; logits is what stock averages over folds",
    )
    ensemble.add_argument(
        "--weights",
        nargs="+",
        metavar="W",
        help="one number per model folder, a JSON file with a list of numbers or an object from folder to number, or "
        "the file that nnunet_ext weights wrote, with a weight for each class or region",
    )
    ensemble.add_argument(
        "--early-exit",
        nargs="?",
        const="label",
        choices=EARLY_EXITS,
        help="skip members where they can no longer change the label (label), or where the mutual information has "
        "converged (information); without a value: label. Saves time where images are much larger than patches; not "
        "with --average logits or --save_members",
    )


def add_pass_flags(ensemble: argparse._ActionsContainer) -> None:
    """Adds the flags of how a member runs over a case."""
    ensemble.add_argument(
        "--fast-resampling",
        action="store_true",
        help="apply the softmax before resampling to the image, not after it as stock does; changes the entropy at "
        "boundaries. Needs nnU-Net's default resampling; not with --average logits",
    )
    ensemble.add_argument(
        "--adapt",
        action="store_true",
        help="test-time adaptation: fit scale and shift of each member's norm layers to each case by lowering the "
        "entropy near the foreground, afresh for every case; a member whose foreground volume or confidence jumps "
        "keeps its unadapted prediction. Can lower the Dice: compare both on cases with ground truth first. Not with "
        "--early-exit, --precision bf16 or auto, or Streaming trainers",
    )
    ensemble.add_argument(
        "--tta",
        choices=TTA_SETS,
        help="test-time transforms: flips (default), stock's, along the axes that the training mirrored; rot90 adds "
        "rotations by 90 degrees in the plane of two axes with equal patch size and spacing; full adds to these, "
        "where they are allowed, rotations by 10 degrees and scales of 0.95 and 1.05 in that plane; none",
    )
    ensemble.add_argument("--tta-members", action="store_true", help="count each test-time transform as a member")
    ensemble.add_argument("--disable_tta", action="store_true", help="the same as --tta none, as in stock nnU-Net")
    ensemble.add_argument(
        "-step_size", type=float, default=0.5, help="step between tiles as a share of the patch size (default: 0.5)"
    )
    ensemble.add_argument(
        "--trust-checkpoints",
        action="store_true",
        help="load checkpoints that contain more than plain data; such a file can run code",
    )
    ensemble.add_argument(
        "-prev_stage_predictions", metavar="FOLDER", help="segmentations of a cascade's first stage"
    )


def add_machine_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of where and how fast networks run."""
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "-device",
        choices=DEVICES,
        help="where the networks run; CUDA_VISIBLE_DEVICES chooses the GPU (default: the first one available)",
    )
    machine.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="fp32, bf16, or auto: bf16 on a CPU that computes faster in it; with bf16 on a CPU, prints what it "
        "changes in one patch of the first case (default: as stock, fp32 on CPUs and "
        "half-precision autocast on CUDA)",
    )
    machine.add_argument(
        "--runtime",
        choices=RUNTIME_NAMES,
        default="torch",
        help="torch (default), openvino (on CPUs; needs nnunet-ext[openvino]), or auto: the faster in a short trial "
        "of torch and, on CPUs, OpenVINO, or on GPUs the compiled network with half-precision weights. Where these "
        "cannot run a network torch does, with a line that says why",
    )
    machine.add_argument(
        "--max-memory",
        type=float,
        metavar="GIB",
        help="the most main memory that prediction takes, in GiB, with one case at a time; what does not fit goes to "
        "temporary files (in TMPDIR). The results are the same; a case that does not fit either way is refused "
        "before its first member (default: what is available)",
    )
    add_progress_bar_flag(machine)


def ensemble_options(arguments: argparse.Namespace) -> EnsembleOptions:
    """The options of the ensemble that the flags give.

    Raises:
        ValueError: if flags contradict each other.
    """
    return EnsembleOptions(
        folds=chosen_folds(arguments.f),
        members=member_rule(arguments.members, arguments.chk),
        device=arguments.device,
        average=arguments.average,
        model_weights=model_weights(arguments.weights, arguments.m or ()),
        class_weights=class_weights(arguments.weights),
        tta_members=arguments.tta_members,
        trust_checkpoints=arguments.trust_checkpoints,
        tile_step_size=arguments.step_size,
        tta=transform_set(arguments.tta, none=arguments.disable_tta),
        precision=arguments.precision,
        runtime=arguments.runtime,
        early_exit=arguments.early_exit,
        fast_resampling=arguments.fast_resampling,
        max_memory=arguments.max_memory,
        adapt=AdaptOptions() if arguments.adapt else None,
        allow_tqdm=not arguments.disable_progress_bar,
    )


def member_rule(members: str | None, checkpoint: str | None) -> str:
    """The value of `--members`, or of `-chk` as stock names a checkpoint; "final" without either."""
    if members and checkpoint:
        raise ValueError(
            f"Members are chosen by --members or by -chk; found {members!r} and {checkpoint!r}. Give one of the two."
        )
    return members or checkpoint or "final"


def transform_set(chosen: TestTimeTransforms | None, *, none: bool) -> TestTimeTransforms:
    """The value of `--tta`, or "none" as stock's `--disable_tta` says it; "flips" without either.

    Raises:
        ValueError: if both are given and contradict each other.
    """
    if none and chosen not in (None, "none"):
        raise ValueError(f"--disable_tta is --tta none; found it together with --tta {chosen}. Give one of the two.")
    return "none" if none else chosen or "flips"


def say_where(options: EnsembleOptions) -> None:
    """Prints where the networks run, and makes the engine log what a case costs.

    Raises:
        ValueError: if the device that the options name is not there.
    """
    from nnunet_ext.inference.engine import device_of
    from nnunet_ext.machine.devices import words_for

    print(words_for(device_of(options)))
    if options.adapt is not None and options.runtime != "torch":
        print("with torch instead of OpenVINO, because --adapt changes the networks")
    log_cost()


def log_cost() -> None:
    """Makes the engine log what a case costs."""
    logging.getLogger("nnunet_ext.cost").setLevel(logging.INFO)


def log_progress() -> None:
    """Makes a command log one line per case, or per fold."""
    logging.getLogger("nnunet_ext.progress").setLevel(logging.INFO)
