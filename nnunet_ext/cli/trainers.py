"""`nnunet_ext trainers`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from nnunet_ext.cli.command import Command

if TYPE_CHECKING:
    from nnunet_ext.trainers.part import Part


def trainers_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "WORD",
        nargs="?",
        help="show only the parts and nnU-Net's own variants with this word in their name or description",
    )
    parser.add_argument(
        "--cost",
        action="store_true",
        help="parameters and operations of the networks of trainers in prediction, for the plans of -d and -c",
    )
    parser.add_argument("-d", metavar="DATASET", help="--cost: dataset name or id, planned in nnUNet_preprocessed")
    parser.add_argument("-c", metavar="CONFIG", help="--cost: configuration, 2d or 3d_fullres, for example")
    parser.add_argument("-p", metavar="PLANS", default="nnUNetPlans", help="--cost: plans (default: %(default)s)")
    parser.add_argument(
        "-tr",
        nargs="+",
        metavar="TRAINER",
        default=(),
        help="--cost: these trainers instead of nnU-Net's and one for each part that changes the network",
    )


def trainers(arguments: argparse.Namespace) -> int:
    from nnunet_ext.trainers.parts import PARTS

    if arguments.cost:
        return cost(arguments)
    if arguments.d or arguments.c or arguments.tr:
        raise ValueError("-d, -c and -tr count costs; found them without --cost. Add --cost.")
    if arguments.WORD:
        return search(arguments.WORD)
    print_parts([part for part in PARTS if not part.internal])
    print(
        "\nA name is nnUNetTrainer + parts, joined by _. Stock variants are parts, too: "
        "nnUNetTrainerCyclical_NoMirroring_500epochs."
    )
    return 0


def cost(arguments: argparse.Namespace) -> int:
    """Prints the costs; returns exit status 1 if a trainer that was named has none."""
    from nnunet_ext.commands.trainer_costs import cost_lines, trainer_costs
    from nnunet_ext.options import TrainerCostOptions

    if not (arguments.d and arguments.c) or arguments.WORD:
        raise ValueError("--cost needs -d DATASET and -c CONFIG, and takes no WORD. Name trainers with -tr.")
    costs = trainer_costs(TrainerCostOptions(arguments.d, arguments.c, arguments.p, tuple(arguments.tr)))
    print(*cost_lines(costs), sep="\n")
    return 1 if arguments.tr and any(each.cost is None for each in costs) else 0


def search(word: str) -> int:
    """Prints what matches a word; returns exit status 1 if nothing does."""
    from nnunet_ext.trainers.search import close_to, matching_parts, matching_variants

    parts, variants = matching_parts(word), matching_variants(word)
    print_parts(parts)
    if variants:
        print("nnU-Net's own variants:", *(f"  -tr {name}" for name in variants), sep="\n")
    if parts or variants:
        return 0
    close = close_to(word)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    print(
        f"nnunet_ext trainers: no part and no variant of nnU-Net contains {word!r}. {hint}Without a word, "
        f"nnunet_ext trainers shows all parts.",
        file=sys.stderr,
    )
    return 1


def print_parts(parts: list[Part]) -> None:
    """The table of parts, by kind."""
    from nnunet_ext.trainers.part import Kind

    width = max((len(part.spelling) for part in parts), default=0)
    for kind in Kind:
        of_kind = [part for part in parts if part.kind is kind]
        if of_kind:
            print(f"{kind.value}:")
        for part in of_kind:
            source = f" ({part.paper})" if part.paper else ""
            print(f"  {part.spelling:{width}}  {part.summary}{source}\n  {'':{width}}  -tr {part.example}")


COMMAND = Command(
    "trainers",
    "list the parts of trainer names",
    trainers_flags,
    trainers,
    """example:
  $ nnunet_ext trainers
  ...
  schedule:
    Cyclical<M>  Cyclical with M cycles instead of 3 (arXiv 2212.06278)
                 -tr nnUNetTrainerCyclical5_500epochs
  $ nnunet_ext trainers mirror        # all about mirroring, including nnU-Net's own variants
  nnU-Net's own variants:
    -tr nnUNetTrainerNoMirroring
    ...
  $ nnunet_ext trainers --cost -d 27 -c 3d_fullres -tr nnUNetTrainer nnUNetTrainerLCOVNet
  trainer               parameters          operations, 10^9
  nnUNetTrainer         31,197,204  x 1.00             954.7  x 1.00
  nnUNetTrainerLCOVNet   5,954,548  x 0.19             206.7  x 0.22""",
    status_1="no part or variant has WORD in it, or a trainer of -tr cannot be built",
)
