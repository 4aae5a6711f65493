"""`nnunet_ext pretrain`."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.patients_flag import add_patients_flag
from nnunet_ext.cli.progress_bar_flag import add_progress_bar_flag
from nnunet_ext.options.pretraining import PRESETS, FixedPlans, PretrainOptions, ScanFilter


def pretrain_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-i",
        required=True,
        metavar="FOLDER",
        help="folder of the scans: CASE_0000<ending>, one file per channel, or one file per scan with any name",
    )
    parser.add_argument(
        "-d", required=True, metavar="DATASET", help="id or name of the dataset to make, such as Dataset900_Scans"
    )
    parser.add_argument(
        "--file-ending", metavar="ENDING", help="file ending (default: the most frequent one in the folder)"
    )
    parser.add_argument(
        "--removed",
        metavar="FOLDER",
        help="folder of masks CASE<ending>, above 0 where an image was defaced; not part of reconstruction losses",
    )
    add_filter_flags(parser.add_argument_group("scans to leave out (default: none)"))
    add_plans_flags(parser.add_argument_group("plans (default: ResEnc-L at 1 mm, as in the paper)"))
    add_training_flags(parser.add_argument_group("training"))
    add_progress_bar_flag(parser)


def add_filter_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--min-fov", type=float, metavar="MM", help="shorter field of view along any axis")
    group.add_argument("--max-spacing", type=float, metavar="MM", help="larger spacing along any axis")
    group.add_argument("--min-file-kb", type=float, metavar="KB", help="smaller files")
    group.add_argument("--max-file-mb", type=float, metavar="MB", help="larger files")


def add_plans_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--plans",
        metavar="FILE",
        help="plans of another dataset, such as nnUNet_preprocessed/DATASET/nnUNetPlans.json",
    )
    group.add_argument(
        "-c", default=PretrainOptions.configuration, metavar="CONFIGURATION", help="of --plans (default: 3d_fullres)"
    )
    group.add_argument(
        "--spacing", type=float, default=FixedPlans.spacing_mm, metavar="MM", help="without --plans (default: 1)"
    )
    group.add_argument(
        "--patch-size",
        type=int,
        default=FixedPlans.patch_size,
        metavar="N",
        help="voxels along each axis without --plans, a multiple of 32 (default: 160)",
    )
    group.add_argument(
        "--batch-size", type=int, metavar="N", help="(default: 6, or 48 with --preset L; that of --plans if given)"
    )


def add_training_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--only-data", action="store_true", help="prepare the dataset and do not train")
    group.add_argument(
        "-tr",
        default=PretrainOptions.trainer,
        metavar="TRAINER",
        help="nnUNetTrainerS3D (default), ...MAE, ...ModelsGenesis, ...VolumeFusion or ...VoCo",
    )
    group.add_argument(
        "--preset",
        choices=PRESETS,
        default=PretrainOptions.preset,
        help="B: 1000 epochs from rate 0.01; L, for S3D and MAE: 4000 from 0.03 (default: B)",
    )
    group.add_argument(
        "-f", type=int, default=PretrainOptions.fold, metavar="FOLD", help="which 5 %% are held out (default: 0)"
    )
    add_patients_flag(group)
    group.add_argument("--c", dest="c_training", action="store_true", help="continue from the last checkpoint")
    group.add_argument("-device", choices=("cuda", "cpu", "mps"), help="(default: cuda if there is one)")
    group.add_argument("-num_gpus", type=int, default=1, metavar="N", help="GPUs (default: 1)")
    group.add_argument("-npp", type=int, default=2, metavar="N", help="scans preprocessed at a time (default: 2)")


def options_from(arguments: argparse.Namespace) -> PretrainOptions:
    """The options that the flags give."""
    return PretrainOptions(
        images=Path(arguments.i),
        dataset=arguments.d,
        file_ending=arguments.file_ending,
        scan_filter=ScanFilter(
            min_fov_mm=arguments.min_fov,
            max_spacing_mm=arguments.max_spacing,
            min_file_kb=arguments.min_file_kb,
            max_file_mb=arguments.max_file_mb,
        ),
        removed=Path(arguments.removed) if arguments.removed else None,
        plans=Path(arguments.plans) if arguments.plans else None,
        configuration=arguments.c,
        fixed=FixedPlans(arguments.spacing, arguments.patch_size),
        preset=arguments.preset,
        batch_size=arguments.batch_size,
        patients=arguments.patients,
        trainer=None if arguments.only_data else arguments.tr,
        fold=arguments.f,
        continue_training=arguments.c_training,
        device=arguments.device,
        processes=arguments.npp,
        num_gpus=arguments.num_gpus,
        allow_tqdm=not arguments.disable_progress_bar,
    )


def pretrain(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.pretrain import prepare, train, training_name

    options = options_from(arguments)
    if options.trainer is not None:
        training_name(options)  # refused before hours of preprocessing
    data = prepare(options)
    print(*data.lines, sep="\n")
    if options.trainer is None:
        return 0
    folder = train(options, data)
    print(f"Start a training from it: -tr nnUNetTrainerFinetune -pretrained_weights {folder / 'checkpoint_best.pth'}")
    return 0


COMMAND = Command(
    "pretrain",
    "make a dataset of scans without labels, and pre-train a network on it",
    pretrain_flags,
    pretrain,
    """example:
  $ nnunet_ext pretrain -i scans -d 900 --min-fov 50 --max-spacing 5
  preprocessing: 100%|##########| 2000/2000
  1893 of 2000 scans are in the dataset.
  Dropped:
      84  spacing
      20  field of view
       3  damaged
  Each scan, and why it was dropped: nnUNet_preprocessed/Dataset900_Pretraining/pretraining_scans.csv
  ...
  Epoch 0
  ...
  Start a training from it: -tr nnUNetTrainerFinetune -pretrained_weights nnUNet_results/.../checkpoint_best.pth""",
    how_to_go_on=lambda _: "Run it again to continue the preprocessing, and with --c the training.",
)
