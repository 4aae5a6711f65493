"""`nnunet_ext postprocess`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.ensemble_flags import add_ensemble_flags, ensemble_options, log_progress, say_where
from nnunet_ext.cli.model_flags import model_choice
from nnunet_ext.cli.patients_flag import add_patients_flag
from nnunet_ext.cli.splits_flag import add_splits_flag
from nnunet_ext.options import OPERATION_NAMES, PostprocessOptions


def postprocess_flags(parser: argparse.ArgumentParser) -> None:
    add_ensemble_flags(parser)
    data = parser.add_argument_group("cases")
    data.add_argument(
        "--from-validation",
        action="store_true",
        help="take the segmentations that the training wrote to fold_X/validation instead of predicting; also "
        "CASE.npz, if every case has it (training with --npz)",
    )
    add_splits_flag(data)
    add_patients_flag(data)
    tried = parser.add_argument_group("what to try")
    tried.add_argument(
        "--operations",
        nargs="+",
        choices=OPERATION_NAMES,
        metavar="NAME",
        help=f"operations to try: {', '.join(OPERATION_NAMES)} (default: all)",
    )
    tried.add_argument(
        "--relabel",
        nargs="+",
        default=(),
        metavar="SMALL:OTHER",
        help="names of labels: a SMALL that is small as a whole may become OTHER; regions inside others are tried "
        "without this flag",
    )
    parser.add_argument(
        "-o",
        metavar="FILE",
        help="file for the result; required with several -m (default: postprocess.json in the model folder)",
    )


def postprocess(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.postprocess import choose_postprocessing
    from nnunet_ext.postprocessing.text import choice_lines

    log_progress()
    options = postprocess_options(arguments)
    if not options.from_validation:
        say_where(options.ensemble)
    chosen, file = choose_postprocessing(options)
    print(*choice_lines(chosen), "", f"Saved to {file}", sep="\n")
    return 0


def postprocess_options(arguments: argparse.Namespace) -> PostprocessOptions:
    """The flags as options.

    Raises:
        ValueError: if flags contradict each other, or a value is not allowed.
    """
    return PostprocessOptions(
        model=model_choice(arguments),
        ensemble=ensemble_options(arguments),
        from_validation=arguments.from_validation,
        operations=arguments.operations,
        relabel=relabel_pairs(arguments.relabel),
        file=Path(arguments.o) if arguments.o else None,
        splits=Path(arguments.splits) if arguments.splits else None,
        patients=arguments.patients,
        previous_stage=Path(arguments.prev_stage_predictions) if arguments.prev_stage_predictions else None,
    )


def relabel_pairs(texts: Sequence[str]) -> list[tuple[str, str]]:
    """`--relabel` as pairs of names.

    Raises:
        ValueError: if a text is not two names with a colon between.
    """
    pairs = []
    for text in texts:
        small, _, other = text.partition(":")
        if not small or not other:
            raise ValueError(f"--relabel takes two names with a colon between, enhancing:necrosis; found {text!r}.")
        pairs.append((small, other))
    return pairs


COMMAND = Command(
    "postprocess",
    "choose post-processing on the cross-validation",
    postprocess_flags,
    postprocess,
    """example:
  $ nnunet_ext postprocess -d 123 -c 2d --from-validation
  ...
  Saved to nnUNet_results/Dataset123_Heart/nnUNetTrainer__nnUNetPlans__2d/postprocess.json
  $ nnunet_ext predict -i images -o results -d 123 -c 2d --postprocess""",
)
