"""`nnunet_ext trainers`."""

from __future__ import annotations

import argparse

from nnunet_ext.cli.command import Command, no_flags


def trainers(arguments: argparse.Namespace) -> int:
    from nnunet_ext.trainers.part import Kind
    from nnunet_ext.trainers.parts import PARTS

    parts = [part for part in PARTS if not part.internal]
    width = max(len(part.spelling) for part in parts)
    for kind in Kind:
        of_kind = [part for part in parts if part.kind is kind]
        if of_kind:
            print(f"{kind.value}:")
        for part in of_kind:
            source = f" ({part.paper})" if part.paper else ""
            print(f"  {part.spelling:{width}}  {part.summary}{source}\n  {'':{width}}  -tr {part.example}")
    print(
        "\nA name is nnUNetTrainer + parts, joined by _. Stock variants are parts, too: "
        "nnUNetTrainerCyclical_NoMirroring_500epochs."
    )
    return 0


COMMAND = Command(
    "trainers",
    "show the parts of trainers' names",
    no_flags,
    trainers,
    """example:
  $ nnunet_ext trainers
  ...
  schedule:
    Cyclical<M>  the same with M cycles (arXiv 2212.06278)
                 -tr nnUNetTrainerCyclical5_500epochs""",
)
