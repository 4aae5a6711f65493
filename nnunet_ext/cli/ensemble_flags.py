"""The flags that put an ensemble together and say where it runs, for `predict` and `calibrate`."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from nnunet_ext.cli.model_flags import add_model_flags, chosen_folds
from nnunet_ext.options import AVERAGES, DEVICES, EARLY_EXITS, PRECISIONS, EnsembleOptions


def add_ensemble_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of models, members and device."""
    model = add_model_flags(parser)
    model.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: all that have members)")

    ensemble = parser.add_argument_group("ensemble")
    ensemble.add_argument(
        "--members",
        default=None,
        metavar="RULE",
        help="which checkpoints of each fold: final (default), best, samples, last-cycle, or a file pattern such as "
        "'checkpoint_c2_*.pth'; with :N the latest N (samples: spread evenly over the cycles), with :N:S every S-th; "
        "or mc-dropout:N, N draws of the final one with dropout on",
    )
    ensemble.add_argument("-chk", metavar="FILE", help="stock's way to say --members FILE")
    ensemble.add_argument(
        "--average",
        choices=AVERAGES,
        default="probabilities",
        help="probabilities (default) is the Bayesian model average; logits is what stock does over folds",
    )
    ensemble.add_argument(
        "--weights",
        nargs="+",
        metavar="W",
        help="one number a model folder, or a JSON file with a list of them or a table from folder to number",
    )
    ensemble.add_argument(
        "--early-exit",
        nargs="?",
        const="label",
        choices=EARLY_EXITS,
        help="leave out members where they cannot change the label (label), or where the mutual information has "
        "settled (information); without a word: label",
    )
    ensemble.add_argument(
        "--fast-resampling",
        action="store_true",
        help="take the softmax before resampling to the image, not after it as stock does; changes the entropy at "
        "borders",
    )
    ensemble.add_argument("--tta-members", action="store_true", help="count every mirrored copy as a member")
    ensemble.add_argument("--disable_tta", action="store_true", help="do not mirror")
    ensemble.add_argument(
        "-step_size", type=float, default=0.5, help="distance of tiles by patch size (default: 0.5)"
    )
    ensemble.add_argument(
        "--trust-checkpoints",
        action="store_true",
        help="allow checkpoints that hold more than data; such a file can run code",
    )
    ensemble.add_argument(
        "-prev_stage_predictions", metavar="FOLDER", help="segmentations of a cascade's first stage"
    )

    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "-device", choices=DEVICES, help="where the networks run (default: the first of them that is there)"
    )
    machine.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="fp32, bf16, or auto: bf16 where a CPU has units for it (default: as stock, fp32 on CPUs and "
        "half-precision autocast on CUDA)",
    )
    machine.add_argument("--disable_progress_bar", action="store_true", help="for logs of batch jobs")


def ensemble_options(arguments: argparse.Namespace) -> EnsembleOptions:
    """How the flags put the ensemble together.

    Raises:
        ValueError: if flags contradict each other.
    """
    return EnsembleOptions(
        folds=chosen_folds(arguments.f),
        members=member_rule(arguments.members, arguments.chk),
        device=arguments.device,
        average=arguments.average,
        model_weights=model_weights(arguments.weights, arguments.m or ()),
        tta_members=arguments.tta_members,
        trust_checkpoints=arguments.trust_checkpoints,
        tile_step_size=arguments.step_size,
        use_mirroring=not arguments.disable_tta,
        precision=arguments.precision,
        early_exit=arguments.early_exit,
        fast_resampling=arguments.fast_resampling,
        allow_tqdm=not arguments.disable_progress_bar,
    )


def member_rule(members: str | None, checkpoint: str | None) -> str:
    """`--members`, or `-chk` as stock spells a file's name; "final" without either."""
    if members and checkpoint:
        raise ValueError(f"Members are chosen by --members or by -chk; found {members!r} and {checkpoint!r}.")
    return members or checkpoint or "final"


def model_weights(texts: Sequence[str] | None, folders: Sequence[str]) -> list[float] | None:
    """`--weights` as numbers: given as such, or as one JSON file with a list or a folder-to-number table.

    Raises:
        ValueError: if it is neither.
    """
    if texts is None:
        return None
    if len(texts) == 1 and Path(texts[0]).is_file():
        content = json.loads(Path(texts[0]).read_text(encoding="utf-8"))
        if isinstance(content, dict):
            missing = [folder for folder in map(str, folders) if folder not in content]
            if missing:
                raise ValueError(f"{texts[0]} must have a weight for every -m folder; it lacks {', '.join(missing)}.")
            content = [content[folder] for folder in map(str, folders)]
        texts = content
    try:
        return [float(text) for text in texts]
    except (TypeError, ValueError) as error:
        raise ValueError(f"--weights must be numbers or a JSON file with numbers; found {texts}.") from error


def say_where(options: EnsembleOptions) -> None:
    """Prints where the networks run.

    Raises:
        ValueError: if the device that the options name is not there.
    """
    from nnunet_ext.inference.engine import device_of
    from nnunet_ext.machine.devices import words_for

    print(words_for(device_of(options)))


def log_progress() -> None:
    """Lets a command log a line per case, or per fold."""
    logging.getLogger("nnunet_ext.progress").setLevel(logging.INFO)
