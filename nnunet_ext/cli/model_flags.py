"""The flags that name a trained model, which several subcommands have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunet_ext.options import ModelChoice


def add_model_flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds the flags that name a trained model."""
    model = parser.add_argument_group("model: either -m, or -d and -c")
    model.add_argument(
        "-m",
        action="append",
        metavar="FOLDER",
        help="folder of a trained model, TRAINER__PLANS__CONFIGURATION; repeatable, predict ensembles all of them",
    )
    model.add_argument("-d", metavar="DATASET", help="dataset name or id, found in nnUNet_results")
    model.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans (default: nnUNetPlans)")
    model.add_argument("-tr", default="nnUNetTrainer", metavar="TRAINER", help="trainer (default: nnUNetTrainer)")
    model.add_argument("-c", metavar="CONFIGURATION", help="2d, 3d_fullres, ...")
    return model


def model_choice(arguments: argparse.Namespace) -> ModelChoice:
    """The model that the flags name.

    Raises:
        ValueError: if both or neither of -m and -d are given.
    """
    return ModelChoice(
        folders=tuple(Path(folder) for folder in arguments.m or ()),
        dataset=arguments.d,
        trainer=arguments.tr,
        plans=arguments.p,
        configuration=arguments.c,
    )


def chosen_folds(texts: Sequence[str] | None) -> list[int | str] | None:
    """`-f` as numbers and "all"; None takes all that have members.

    Raises:
        ValueError: if a fold is something else.
    """
    if not texts:
        return None
    wrong = [text for text in texts if text != "all" and not text.isdecimal()]
    if wrong:
        raise ValueError(f"-f takes fold numbers, or all; found {' '.join(wrong)}.")
    return [text if text == "all" else int(text) for text in texts]
