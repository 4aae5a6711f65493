"""`nnunet_ext preprocess-unlabelled`."""

from __future__ import annotations

import argparse
import sys

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.progress_bar_flag import add_progress_bar_flag
from nnunet_ext.options import UnlabelledOptions


def preprocess_unlabelled_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", required=True, metavar="DATASET", help="dataset name or id; its imagesUn/ is read")
    parser.add_argument("-c", required=True, metavar="CONFIGURATION", help="configuration that is trained")
    parser.add_argument("-p", default=UnlabelledOptions.plans, metavar="PLANS", help="plans (default: nnUNetPlans)")
    parser.add_argument(
        "-npp", type=int, default=UnlabelledOptions.processes, metavar="N", help="images at a time (default: 2)"
    )
    parser.add_argument("--overwrite", action="store_true", help="preprocess again, as after a change of the plans")
    add_progress_bar_flag(parser)


def preprocess_unlabelled(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands import preprocess_unlabelled as command

    found = command.preprocess_unlabelled(
        UnlabelledOptions(
            dataset=arguments.d,
            configuration=arguments.c,
            plans=arguments.p,
            processes=arguments.npp,
            overwrite=arguments.overwrite,
            allow_tqdm=not arguments.disable_progress_bar,
        )
    )
    for scan in found.dropped:
        print(f"{scan.scan.name} was left out: {scan.dropped.reason if scan.dropped else ''}", file=sys.stderr)
    kept = len(found.scans) - len(found.dropped)
    print(f"{kept} images without labels: {found.folder}")
    print(f"Train: nnunet_ext train {arguments.d} {arguments.c} 0 -tr nnUNetTrainerMeanTeacher -p {arguments.p}")
    return 1 if found.dropped else 0


COMMAND = Command(
    "preprocess-unlabelled",
    "preprocess the images in imagesUn/ of a dataset, for MeanTeacher and Unlabelled",
    preprocess_unlabelled_flags,
    preprocess_unlabelled,
    """example:
  $ nnunet_ext preprocess-unlabelled -d 27 -c 3d_fullres
  100 images without labels: nnUNet_preprocessed/Dataset027_ACDC/nnUNetPlans_3d_fullres_unlabelled
  Train: nnunet_ext train 27 3d_fullres 0 -tr nnUNetTrainerMeanTeacher -p nnUNetPlans""",
    how_to_go_on=lambda _: "Run it again: complete images are kept.",
    status_1="some images could not be read or preprocessed; the others are",
)
