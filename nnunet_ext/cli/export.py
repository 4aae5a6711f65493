"""`nnunet_ext export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.model_flags import add_model_flags, chosen_folds, model_choice
from nnunet_ext.options import PlainCopyOptions


def export_flags(parser: argparse.ArgumentParser) -> None:
    model = add_model_flags(parser)
    model.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: all folds with the checkpoint)")
    parser.add_argument(
        "-o",
        required=True,
        metavar="FOLDER",
        help="results folder for the copy, laid out like nnUNet_results; the model's folder in it must not exist",
    )
    parser.add_argument(
        "-chk", default="checkpoint_final.pth", metavar="FILE", help="checkpoint (default: checkpoint_final.pth)"
    )
    parser.add_argument(
        "--classifier", type=int, metavar="K", help="which classifier of a Streaming model to copy, from 0"
    )
    parser.add_argument(
        "--trust-checkpoints", action="store_true", help="load checkpoints that contain more than plain data"
    )


def export(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.export import export_models

    options = PlainCopyOptions(
        results=Path(arguments.o),
        folds=chosen_folds(arguments.f),
        checkpoint=arguments.chk,
        classifier=arguments.classifier,
        trust_checkpoints=arguments.trust_checkpoints,
    )
    copies = export_models(model_choice(arguments), options)
    print(*copies, sep="\n")
    return 0


COMMAND = Command(
    "export",
    "copy a trained model so that stock nnU-Net can predict with it without this package",
    export_flags,
    export,
    """example:
  $ nnunet_ext export -d 4 -c 3d_fullres -tr nnUNetTrainerDSD -o plain
  plain/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres
  $ nnUNet_results=plain nnUNetv2_predict -d 4 -c 3d_fullres -f 0 -i images -o results""",
)
