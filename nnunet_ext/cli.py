"""The command `nnunet_ext`: parsing only. Each subcommand is two functions: its flags, and what it calls.

Heavy modules are imported inside the functions that need them, so that help comes at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nnunet_ext
from nnunet_ext import discovery

AVERAGES = ("probabilities", "logits")
MAP_NAMES = ("entropy", "mutual_information", "expected_entropy", "variance", "confidence")
DEVICES = ("cuda", "cpu", "mps")


@dataclass(frozen=True)
class Command:
    """One subcommand: its name, a line for the overview, its flags, what it does, and an example with its output."""

    name: str
    summary: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    example: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status, 0 only if all that was asked for was done."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if arguments[:1] == ["train"]:  # all flags are nnUNetv2_train's own
        return train(arguments[1:])
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    if getattr(parsed, "verbose", False):
        logging.getLogger("nnunet_ext").setLevel(logging.INFO)
    try:
        return parsed.run(parsed)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"nnunet_ext {parsed.command}: {error}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="nnunet_ext",
        description="Uncertainty, checkpoint ensembles and new trainers for nnU-Net v2.",
        epilog="nnunet_ext COMMAND --help shows an example of each.",
    )
    parser.add_argument("--version", action="version", version=f"nnunet_ext {nnunet_ext.__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=command.example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_flags(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def env_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shell",
        choices=("sh", "powershell", "cmd"),
        default="powershell" if os.name == "nt" else "sh",
        help="whose syntax to print (default: this system's)",
    )


def env(arguments: argparse.Namespace) -> int:
    print(discovery.shell_line(arguments.shell))
    return 0


def no_flags(parser: argparse.ArgumentParser) -> None:
    """The subcommand has no flags."""


def doctor(arguments: argparse.Namespace) -> int:
    from nnunet_ext.doctor import examine

    findings = examine()
    for finding in findings:
        print(finding)
    return 1 if any(finding.remedy for finding in findings) else 0


def trainers(arguments: argparse.Namespace) -> int:
    from nnunet_ext.trainers import PARTS

    parts = [part for part in PARTS if not part.internal]
    width = max(len(part.spelling) for part in parts)
    for part in parts:
        source = f" ({part.paper})" if part.paper else ""
        print(f"{part.spelling:{width}}  {part.summary}{source}\n{'':{width}}  -tr {part.example}")
    print(
        "\nA name is nnUNetTrainer + parts, joined by _. Stock variants are parts, too: "
        "nnUNetTrainerCyclical_NoMirroring_500epochs."
    )
    return 0


def train(arguments: Sequence[str]) -> int:
    """`nnUNetv2_train` with the variable set; its flags and messages are nnU-Net's."""
    if "-h" in arguments or "--help" in arguments:
        print(f"nnunet_ext train is nnUNetv2_train with nnUNet_extTrainer set.\n\n{TRAIN_EXAMPLE}\n\nIts flags:\n")
    discovery.activate()
    from nnunetv2.run.run_training import run_training_entry

    from nnunet_ext.trainers.names import TrainerNameError

    # as the script of nnU-Net sets it: several threads for compiling do not help and can cause problems
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    sys.argv = ["nnUNetv2_train", *arguments]
    try:
        run_training_entry()
    except TrainerNameError as error:  # anything else is nnU-Net's, which shows its own trace
        print(f"nnunet_ext train: {error}", file=sys.stderr)
        return 1
    return 0


def add_model_flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds the flags that name a trained model."""
    model = parser.add_argument_group("model: either -m, or -d and -c")
    model.add_argument(
        "-m",
        action="append",
        metavar="FOLDER",
        help="a trained model, TRAINER__PLANS__CONFIGURATION; predict makes an ensemble of several",
    )
    model.add_argument("-d", metavar="DATASET", help="dataset name or id, found in nnUNet_results")
    model.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans (default: nnUNetPlans)")
    model.add_argument("-tr", default="nnUNetTrainer", metavar="TRAINER", help="trainer (default: nnUNetTrainer)")
    model.add_argument("-c", metavar="CONFIGURATION", help="2d, 3d_fullres, ...")
    return model


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


def export_flags(parser: argparse.ArgumentParser) -> None:
    model = add_model_flags(parser)
    model.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: all that have the checkpoint)")
    parser.add_argument("-o", required=True, metavar="FOLDER", help="a results folder, as nnUNet_results is one")
    parser.add_argument(
        "-chk", default="checkpoint_final.pth", metavar="FILE", help="checkpoint (default: checkpoint_final.pth)"
    )
    parser.add_argument(
        "--classifier", type=int, metavar="K", help="of a Streaming model, which of its networks to copy, from 0"
    )
    parser.add_argument("--trust-checkpoints", action="store_true", help="allow checkpoints that hold more than data")


def export(arguments: argparse.Namespace) -> int:
    from nnunet_ext.inference.model_export import export_plain_model
    from nnunet_ext.predict import chosen_folds, model_folders

    copies = [
        export_plain_model(
            folder,
            Path(arguments.o),
            folds=chosen_folds(arguments.f),
            checkpoint=arguments.chk,
            classifier=arguments.classifier,
            trust=arguments.trust_checkpoints,
        )
        for folder in model_folders(arguments)
    ]
    print(*copies, sep="\n")
    return 0


def demo_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", default="demo", metavar="FOLDER", help="where everything goes (default: demo)")


def demo(arguments: argparse.Namespace) -> int:
    from nnunet_ext.demo import run_demo

    run_demo(Path(arguments.o), say=print)
    return 0


TRAIN_EXAMPLE = """example:
  $ nnunet_ext train 123 2d 0 -tr nnUNetTrainerCyclical
  ...
  2026-01-31 12:00:00: Epoch 320
  2026-01-31 12:00:00: Current learning rate: 0.00756
  2026-01-31 12:01:40: Sampled the weights of cycle 0: checkpoint_c0_e0320.pth"""

COMMANDS = (
    Command(
        "env",
        "print the line that lets nnU-Net find the trainers",
        env_flags,
        env,
        """example:
  $ eval "$(nnunet_ext env)"          # beside nnUNet_raw, nnUNet_preprocessed and nnUNet_results
  $ nnunet_ext env
  export nnUNet_extTrainer="/path/to/nnunet_ext/discovery\"""",
    ),
    Command(
        "doctor",
        "check versions, folders, devices and trainers, and say what to do",
        no_flags,
        doctor,
        """example:
  $ nnunet_ext doctor
  ok       nnunetv2      2.8.1
  problem  nnUNet_raw    is not set
                         -> export nnUNet_raw=FOLDER, the folder with your DatasetXXX_NAME folders""",
    ),
    Command(
        "trainers",
        "show the parts of trainers' names",
        no_flags,
        trainers,
        """example:
  $ nnunet_ext trainers
  Cyclical<M>  the same with M cycles (arXiv 2212.06278)
               -tr nnUNetTrainerCyclical5_500epochs""",
    ),
    Command(
        "train",
        "nnUNetv2_train with the trainers found",
        no_flags,
        lambda arguments: train([]),
        TRAIN_EXAMPLE,
    ),
    Command(
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
    ),
    Command(
        "export",
        "copy a trained model so that stock nnU-Net predicts with it on machines without this package",
        export_flags,
        export,
        """example:
  $ nnunet_ext export -d 4 -c 3d_fullres -tr nnUNetTrainerDSD -o plain
  plain/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres
  $ nnUNet_results=plain nnUNetv2_predict -d 4 -c 3d_fullres -f 0 -i images -o results""",
    ),
    Command(
        "demo",
        "phantom data, planning, training, prediction with uncertainty: under 6 minutes on two CPU cores",
        demo_flags,
        demo,
        """example:
  $ nnunet_ext demo -o demo
  ...
  Look at demo/contact_sheet.png and demo/predictions/cases.csv""",
    ),
)
