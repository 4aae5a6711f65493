"""`nnunet_ext select`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.cli.command import Command
from nnunet_ext.cli.progress_bar_flag import add_progress_bar_flag
from nnunet_ext.cli.simulate_flags import add_simulate_flags, simulate_options
from nnunet_ext.options import (
    DEVICES,
    SELECTED_BY,
    STRATEGY_NAMES,
    UNIT_KINDS,
    ScoreOptions,
    SelectOptions,
    StrategyOptions,
)

if TYPE_CHECKING:
    from nnunet_ext.commands.select import Selection

SHOWN_LINES = 10


def select_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-p",
        metavar="FOLDER",
        help="predictions of the unlabelled images by nnunet_ext predict, with the map of --by",
    )
    parser.add_argument("-o", required=True, metavar="FOLDER", help="folder for the results; created if missing")
    parser.add_argument(
        "-i",
        metavar="FOLDER",
        help="folder of the images (default: those that were predicted, if they still exist)",
    )
    parser.add_argument(
        "--already",
        nargs="+",
        default=[],
        metavar="CASE",
        help="what needs no annotation any more: names of cases, and selected.csv of earlier selections",
    )
    parser.add_argument(
        "--shown",
        type=int,
        default=SelectOptions.shown,
        metavar="N",
        help=f"number of units on the page; 0 writes none (default: {SelectOptions.shown})",
    )
    add_score_flags(parser)
    add_strategy_flags(parser)
    features = parser.add_argument_group("features, for k-centre")
    features.add_argument("-m", metavar="FOLDER", help="model folder (default: that of the first member)")
    features.add_argument(
        "--labelled", metavar="FOLDER", help="images that have labels, from which to keep away (default: none)"
    )
    features.add_argument("-device", choices=DEVICES, help="also of a simulation (default: the fastest available)")
    add_simulate_flags(parser)
    add_progress_bar_flag(parser)


def add_score_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what is annotated and how it is scored."""
    default = ScoreOptions
    group = parser.add_argument_group("what to annotate")
    group.add_argument(
        "--unit",
        choices=UNIT_KINDS,
        default=default.unit,
        help=f"whole cases, slices or patches (default: {default.unit})",
    )
    group.add_argument(
        "--by", choices=SELECTED_BY, default=default.by, help=f"map of the predictions (default: {default.by})"
    )
    group.add_argument(
        "--top-share",
        type=float,
        default=default.top_share,
        metavar="SHARE",
        help="a unit's score is the mean of the map over this share of its voxels, the most uncertain ones "
        f"(default: {default.top_share})",
    )
    group.add_argument(
        "--patch-size", nargs=3, type=int, metavar=("Z", "Y", "X"), help="voxels of a patch, with --unit patch"
    )


def add_strategy_flags(parser: argparse.ArgumentParser) -> None:
    """Adds how units are chosen."""
    default = StrategyOptions
    group = parser.add_argument_group("how to choose")
    group.add_argument(
        "--strategy",
        choices=STRATEGY_NAMES,
        default=default.name,
        help="top: the highest scores; power: noisy scores, stratified by predicted label; k-centre: of the highest "
        f"scores those that differ most; random: foreground-aware (default: {default.name})",
    )
    group.add_argument(
        "--number", type=int, default=default.number, metavar="N", help=f"units to select (default: {default.number})"
    )
    group.add_argument(
        "--stratified",
        type=float,
        default=default.stratified,
        metavar="SHARE",
        help="power and random: share of them that is divided evenly over the predicted labels "
        f"(default: {default.stratified})",
    )
    group.add_argument(
        "--beta",
        type=float,
        default=default.beta,
        help=f"power: larger is less noise; raise it from round to round, up to 100 (default: {default.beta:g})",
    )
    group.add_argument(
        "--candidates",
        type=int,
        default=default.candidates,
        metavar="N",
        help=f"k-centre: choose from N times --number units (default: {default.candidates})",
    )
    group.add_argument(
        "--most-per-case", type=int, metavar="N", help="select at most N units of one case (default: no limit)"
    )
    group.add_argument(
        "--seed", type=int, default=default.seed, metavar="N", help=f"of the random numbers (default: {default.seed})"
    )


def select(arguments: argparse.Namespace) -> int:
    if arguments.simulate:
        return simulate_selection(arguments)
    from nnunet_ext.commands.select import select_units

    print(*lines_of(select_units(select_options(arguments)), arguments.unit), sep="\n")
    return 0


def simulate_selection(arguments: argparse.Namespace) -> int:
    """Replays a labelled dataset, and prints the curve as a table."""
    from nnunet_ext.commands.select_simulate import CURVE_NAME, RESULTS_NAME, simulate
    from nnunet_ext.selection.replay import replay_lines

    options = simulate_options(arguments, score_options(arguments), strategy_options(arguments))
    logging.getLogger("nnunet_ext.commands.select_simulate").setLevel(logging.INFO)  # a line after each training
    steps = simulate(options)
    print(*replay_lines(steps), "", options.output / RESULTS_NAME, options.output / CURVE_NAME, sep="\n")
    return 0


def select_options(arguments: argparse.Namespace) -> SelectOptions:
    """The flags as options.

    Raises:
        ValueError: if a value is out of range, or flags contradict each other.
    """
    if not arguments.p:
        raise ValueError("select needs the folder of predictions, -p; or --simulate DATASET. Found neither.")
    return SelectOptions(
        predictions=Path(arguments.p),
        output=Path(arguments.o),
        score=score_options(arguments),
        strategy=strategy_options(arguments),
        already=tuple(arguments.already),
        images=optional_path(arguments.i),
        labelled=optional_path(arguments.labelled),
        model=optional_path(arguments.m),
        device=arguments.device,
        shown=arguments.shown,
        allow_tqdm=not arguments.disable_progress_bar,
    )


def score_options(arguments: argparse.Namespace) -> ScoreOptions:
    """What is annotated and how it is scored."""
    return ScoreOptions(
        by=arguments.by,
        unit=arguments.unit,
        patch_size=tuple(arguments.patch_size) if arguments.patch_size else None,
        top_share=arguments.top_share,
    )


def strategy_options(arguments: argparse.Namespace) -> StrategyOptions:
    """How units are chosen."""
    return StrategyOptions(
        name=arguments.strategy,
        number=arguments.number,
        stratified=arguments.stratified,
        beta=arguments.beta,
        candidates=arguments.candidates,
        most_per_case=arguments.most_per_case,
        seed=arguments.seed,
    )


def optional_path(text: str | None) -> Path | None:
    """The path that a flag names."""
    return Path(text) if text else None


def lines_of(selection: Selection, unit: str) -> list[str]:
    """The first units, and where the rest is."""
    shown = selection.choices[:SHOWN_LINES]
    width = max(map(len, ("case", *(choice.unit.case for choice in shown))))
    place = unit == "slice"
    lines = [f"rank  {'case':{width}}  {'slice (from 0)  ' if place else ''}score  chosen for"]
    for rank, choice in enumerate(shown, start=1):
        where = f"{choice.unit.slice:14}  " if place else ""
        label = "" if choice.label is None else selection.label_names.get(choice.label, str(choice.label))
        lines.append(f"{rank:4}  {choice.unit.case:{width}}  {where}{choice.unit.score:.3f}  {label}".rstrip())
    if len(selection.choices) > len(shown):
        lines.append(f"and {len(selection.choices) - len(shown)} more")
    plural = "es" if unit == "patch" else "s"
    lines += [
        "",
        f"{len(selection.choices)} of {selection.units} {unit}{plural} in {selection.cases} cases: {selection.table}",
    ]
    return lines if selection.page is None else [*lines, f"page: {selection.page}"]


def how_to_go_on(arguments: argparse.Namespace) -> str:
    """What is complete after Ctrl-C, and how to continue."""
    if arguments.simulate:
        return "Run it again: what is trained, predicted and selected is kept."
    return "Run the command again."


COMMAND = Command(
    "select",
    "rank which unlabelled cases, slices or patches to annotate next",
    select_flags,
    select,
    """example:
  $ nnunet_ext predict -d 27 -c 2d -i unlabelled -o predicted
  $ nnunet_ext select -p predicted -o round1 --number 4
  rank  case                score  chosen for
     1  patient104_frame01  0.512  RV
     2  patient131_frame12  0.447
     3  patient118_frame01  0.498  MLV
     4  patient147_frame09  0.533

  4 of 100 cases in 100 cases: round1/selected.csv
  page: round1/selected.html""",
    how_to_go_on=how_to_go_on,
)
