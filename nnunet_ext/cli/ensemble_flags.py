"""The flags that put an ensemble together and say where it runs, for `predict` and `calibrate`."""

from __future__ import annotations

import argparse

from nnunet_ext.cli.model_flags import add_model_flags

AVERAGES = ("probabilities", "logits")
EARLY_EXITS = ("label", "information")
PRECISIONS = ("fp32", "bf16", "auto")
DEVICES = ("cuda", "cpu", "mps")


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
    machine.add_argument("-device", choices=DEVICES, default="cuda", help="where the networks run (default: cuda)")
    machine.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="fp32, bf16, or auto: bf16 where a CPU has units for it (default: as stock, fp32 on CPUs and "
        "half-precision autocast on CUDA)",
    )
    machine.add_argument("--disable_progress_bar", action="store_true", help="for logs of batch jobs")
