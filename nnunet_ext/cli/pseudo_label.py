"""`nnunet_ext pseudo-label`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.patients_flag import add_patients_flag
from nnunet_ext.cli.progress_bar_flag import add_progress_bar_flag
from nnunet_ext.cli.splits_flag import add_splits_flag
from nnunet_ext.options import PseudoLabelOptions

if TYPE_CHECKING:
    from nnunet_ext.commands.pseudo_label import PseudoLabels


def pseudo_label_flags(parser: argparse.ArgumentParser) -> None:
    default = PseudoLabelOptions
    parser.add_argument("-d", required=True, metavar="DATASET", help="dataset with labels, name or id")
    parser.add_argument("-i", required=True, metavar="FOLDER", help="images without labels; they are not copied")
    parser.add_argument(
        "-p",
        required=True,
        metavar="FOLDER",
        help="their predictions by nnunet_ext predict --save_probabilities --maps mutual_information",
    )
    new = parser.add_argument_group("new dataset")
    new.add_argument("--new-id", type=int, required=True, metavar="ID", help="its number, which must be free")
    new.add_argument(
        "--name", metavar="NAME", help="its name after the number (default: the dataset's with Pseudo and the round)"
    )
    add_splits_flag(new, "of the dataset")
    add_patients_flag(new)
    limits = parser.add_argument_group("voxels that become ignored")
    limits.add_argument(
        "--confidence",
        nargs="+",
        default=[],
        metavar="[LABEL=]SHARE",
        help="voxels with a lower confidence in their label; 2=0.7 is a limit of label 2 alone "
        f"(default: {default.confidence})",
    )
    limits.add_argument(
        "--least-kept",
        type=float,
        default=default.least_kept,
        metavar="SHARE",
        help="the limit of a label without one of its own is lowered until this share of its voxels reaches it; 0 "
        f"lowers none (default: {default.least_kept})",
    )
    limits.add_argument(
        "--most-disagreement",
        type=float,
        default=default.most_disagreement,
        metavar="SHARE",
        help="voxels with a larger mutual information between members, 0 to 1; 1 needs no such map "
        f"(default: {default.most_disagreement})",
    )
    add_progress_bar_flag(parser)


def pseudo_label(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.pseudo_label import write_pseudo_labels

    print(*lines_of(write_pseudo_labels(options_from(arguments))), sep="\n")
    return 0


def options_from(arguments: argparse.Namespace) -> PseudoLabelOptions:
    """The flags as options.

    Raises:
        ValueError: if a value is out of range, or a limit is not a number.
    """
    common, of_labels = confidence_of(arguments.confidence)
    return PseudoLabelOptions(
        dataset=arguments.d,
        images=Path(arguments.i),
        predictions=Path(arguments.p),
        new_id=arguments.new_id,
        name=arguments.name,
        confidence=common,
        label_confidence=of_labels,
        least_kept=arguments.least_kept,
        most_disagreement=arguments.most_disagreement,
        splits=Path(arguments.splits) if arguments.splits else None,
        patients=arguments.patients,
        allow_tqdm=not arguments.disable_progress_bar,
    )


def confidence_of(words: list[str]) -> tuple[float, dict[int, float]]:
    """The limit of all labels, and those of single ones.

    Raises:
        ValueError: if a word is neither SHARE nor LABEL=SHARE.
    """
    common, of_labels = PseudoLabelOptions.confidence, {}
    for word in words:
        label, equals, share = word.rpartition("=")
        try:
            if equals:
                of_labels[int(label)] = float(share)
            else:
                common = float(share)
        except ValueError:
            raise ValueError(
                f"--confidence takes a number, or a label's number with one, such as 0.9 2=0.7; found {word}."
            ) from None
    return common, of_labels


def lines_of(found: PseudoLabels) -> list[str]:
    """What was written, what of each label is ignored, and how to go on."""
    source = found.source
    names = {labels[0]: name for name, labels in source.description.structures.items()} | {0: "background"}
    lines = [
        f"round {found.round}: {len(found.cases)} pseudo-labelled cases beside {len(source.labelled)} labelled ones: "
        f"{found.folder}"
    ]
    for label, share in found.ignored.items():
        name = f"label {label}" if source.description.regions else names[label]
        lines.append(f"  {name}: {ignored_words(share)}; confidence of at least {found.limits[label]:.3f}")
    lines += [f"left out: {case}, {reason}" for case, reason in sorted(source.left_out.items())]
    number = source.options.new_id
    return [
        *lines,
        f"next: nnUNetv2_plan_and_preprocess -d {number}, then train with nnUNetTrainer, or with",
        "      nnUNetTrainerCaseWeights, which weights each case by its confidence",
    ]


def ignored_words(share: float | None) -> str:
    """How much of a label is ignored."""
    if share is None:
        return "predicted nowhere"
    return "all ignored, so only labelled cases teach it" if share == 1 else f"{100 * share:.1f} % ignored"


COMMAND = Command(
    "pseudo-label",
    "make labels of an ensemble's predictions, with doubtful voxels ignored",
    pseudo_label_flags,
    pseudo_label,
    """example:
  $ nnunet_ext predict -d 27 -c 2d -i unlabelled -o predicted --save_probabilities --maps mutual_information
  $ nnunet_ext pseudo-label -d 27 -i unlabelled -p predicted --new-id 227
  round 1: 100 pseudo-labelled cases beside 200 labelled ones: nnUNet_raw/Dataset227_ACDCPseudo1
    background: 0.4 % ignored; confidence of at least 0.900
    RV: 21.3 % ignored; confidence of at least 0.900
  ...
  next: nnUNetv2_plan_and_preprocess -d 227, then train with nnUNetTrainer, or with
        nnUNetTrainerCaseWeights, which weights each case by its confidence""",
)
