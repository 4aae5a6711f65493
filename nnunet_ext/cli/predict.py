"""`nnunet_ext predict`."""

from __future__ import annotations

import argparse
import sys

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.model_flags import add_model_flags

AVERAGES = ("probabilities", "logits")
MAP_NAMES = ("entropy", "mutual_information", "expected_entropy", "variance", "confidence")
DEVICES = ("cuda", "cpu", "mps")


def predict_flags(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("images and results")
    files.add_argument("-i", required=True, metavar="FOLDER", help="images, named CASE_0000<ending>")
    files.add_argument("-o", required=True, metavar="FOLDER", help="where the results go; made if it is missing")
    files.add_argument("--continue_prediction", "--c", action="store_true", help="skip cases that are complete")
    files.add_argument("-prev_stage_predictions", metavar="FOLDER", help="segmentations of a cascade's first stage")
    files.add_argument("-num_parts", type=int, default=1, metavar="N", help="divide the cases into N runs")
    files.add_argument("-part_id", type=int, default=0, metavar="K", help="which of them this run is, from 0")

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

    results = parser.add_argument_group("what to write")
    results.add_argument(
        "--maps",
        nargs="+",
        default=["entropy"],
        choices=(*MAP_NAMES, "none"),
        metavar="MAP",
        help=f"of {', '.join(MAP_NAMES)}, or none (default: entropy)",
    )
    results.add_argument("--save_probabilities", action="store_true", help="CASE.npz and CASE.pkl, as stock")
    results.add_argument("--save_members", action="store_true", help="each member's own segmentation")

    machine = parser.add_argument_group("machine")
    machine.add_argument("-device", choices=DEVICES, default="cuda", help="where the networks run (default: cuda)")
    machine.add_argument("-npp", type=int, default=1, help="0: preprocess in line; else the next case meanwhile")
    machine.add_argument("-nps", type=int, default=1, help="0: write in line; else while the next case runs")
    machine.add_argument("--verbose", action="store_true", help="say more while running")
    machine.add_argument("--disable_progress_bar", action="store_true", help="for logs of batch jobs")


def predict(arguments: argparse.Namespace) -> int:
    from nnunet_ext.predict import predict_folder

    report = predict_folder(arguments)
    done = f"{len(report.predicted)} predicted" + (
        f", {len(report.skipped)} complete before" if report.skipped else ""
    )
    print(f"{done}, {len(report.failed)} failed: {arguments.o}")
    for name, message in report.failed.items():
        print(f"  {name}: {message}", file=sys.stderr)
    return 1 if report.failed else 0


COMMAND = Command(
    "predict",
    "segment images with an ensemble of checkpoints, with uncertainty",
    predict_flags,
    predict,
    """example:
  $ nnunet_ext predict -i images -o results -m nnUNet_results/Dataset123_Heart/nnUNetTrainer__nnUNetPlans__2d
  heart_010: 100%|##########| 50/50 [00:41<00:00,  1.21member/s]
  10 predicted, 0 failed: results
  $ ls results
  cases.csv  dataset.json  heart_001.nii.gz  ...  maps  plans.json  predict_args.json""",
)
