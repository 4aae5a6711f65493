"""`nnunet_ext export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.model_flags import add_model_flags, chosen_folds, model_choice
from nnunet_ext.options import NETWORK_FORMATS, NETWORK_PRECISIONS, DeployOptions, PlainCopyOptions


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
    add_deployment_flags(parser)


def add_deployment_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a model for a machine without nnU-Net."""
    deployment = parser.add_argument_group("for a machine without nnU-Net")
    deployment.add_argument(
        "--format",
        choices=NETWORK_FORMATS,
        help="write each checkpoint as a network in this format, with model.json (spacing, normalisation, patch, "
        "axes, labels) and predict.py, which segments a NIfTI file with them; without it: a copy for stock nnU-Net. "
        "onnx and openvino need pip install 'nnunet-ext[onnx]' or 'nnunet-ext[openvino]'",
    )
    deployment.add_argument(
        "--precision",
        choices=NETWORK_PRECISIONS,
        help="of the networks: fp32 (default), or fp16, refused if a layer overflows in it",
    )
    deployment.add_argument(
        "--int8",
        action="store_true",
        help="convolutions in int8, with ranges from up to 10 training cases of each fold; prints the Dice that it "
        "costs on up to 20 held-out cases. Only with --format openvino, and needs pip install 'nnunet-ext[int8]'",
    )
    deployment.add_argument(
        "-i",
        metavar="IMAGES",
        help="folder of images that the networks are compared with torch on, besides noise (default: imagesTr of the "
        "dataset in nnUNet_raw)",
    )


def export(arguments: argparse.Namespace) -> int:
    if arguments.format is not None:
        return deploy(arguments)
    from nnunet_ext.commands.export import export_models

    require_no_deployment_flag(arguments)
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


def deploy(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.export import deploy_models
    from nnunet_ext.deployment.text import outcome_text

    if arguments.classifier is not None:
        raise ValueError(
            "--classifier copies one network of a Streaming model for stock nnU-Net; found --format as well. Copy it "
            "first, and export the copy with --format."
        )
    options = DeployOptions(
        results=Path(arguments.o),
        format=arguments.format,
        precision=arguments.precision or "fp32",
        folds=chosen_folds(arguments.f),
        checkpoint=arguments.chk,
        images=None if arguments.i is None else Path(arguments.i),
        trust_checkpoints=arguments.trust_checkpoints,
        int8=arguments.int8,
    )
    for deployed in deploy_models(model_choice(arguments), options):
        print(outcome_text(deployed))
    return 0


def require_no_deployment_flag(arguments: argparse.Namespace) -> None:
    """Refuses flags that only mean something with --format.

    Raises:
        ValueError: if one is given.
    """
    given = [flag for flag, value in (("--precision", arguments.precision), ("-i", arguments.i)) if value is not None]
    given += ["--int8"] * arguments.int8
    if given:
        raise ValueError(
            f"{' and '.join(given)} need --format; a copy for stock nnU-Net keeps the weights as they are. Add "
            f"--format, or leave them out."
        )


COMMAND = Command(
    "export",
    "copy a trained model so that stock nnU-Net can predict with it, or any machine without nnU-Net",
    export_flags,
    export,
    """example:
  $ nnunet_ext export -d 4 -c 3d_fullres -tr nnUNetTrainerDSD -o plain
  plain/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres
  $ nnUNet_results=plain nnUNetv2_predict -d 4 -c 3d_fullres -f 0 -i images -o results
  $ nnunet_ext export -d 4 -c 3d_fullres -f 0 -o deployed --format onnx
  deployed/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres
    network_0: probabilities within 1.3e-05 of torch on 4 patches; in fp16 within 0.0029, other labels in 0.002 %
  $ python deployed/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres/predict.py \\
      images/hippocampus_367_0000.nii.gz -o hippocampus_367.nii.gz""",
)
