"""The flags of `nnunet_ext select --simulate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.cli.patients_flag import add_patients_flag
from nnunet_ext.options import STRATEGY_NAMES, TTA_SETS, ScoreOptions, SimulateOptions, StrategyOptions


def add_simulate_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a simulation."""
    default = SimulateOptions
    group = parser.add_argument_group("simulation: replays a labelled dataset, to compare strategies")
    group.add_argument(
        "--simulate",
        metavar="DATASET",
        help="instead of -p: name or id of a planned and preprocessed dataset with splits. Each round trains on the "
        "labelled cases, predicts the others and adds --number of them; what a run finds trained is not trained "
        "again. Folds are appended to splits_final.json",
    )
    group.add_argument("-c", metavar="CONFIGURATION", help="2d, 3d_fullres, ...")
    group.add_argument("--plans", default=default.plans, metavar="PLANS", help=f"plans (default: {default.plans})")
    group.add_argument(
        "-tr", default=default.trainer, metavar="TRAINER", help=f"trainer (default: {default.trainer})"
    )
    group.add_argument(
        "-f",
        type=int,
        default=default.fold,
        metavar="FOLD",
        help=f"its validation cases judge, its training cases are the pool (default: {default.fold})",
    )
    group.add_argument("--members", default=default.members, help=f"as in predict (default: {default.members})")
    group.add_argument("--tta", choices=TTA_SETS, default=default.tta, help=f"as in predict (default: {default.tta})")
    group.add_argument(
        "--start",
        type=int,
        default=default.start,
        metavar="N",
        help=f"cases with labels at the start, whole patients only (default: {default.start})",
    )
    group.add_argument(
        "--rounds", type=int, default=default.rounds, metavar="N", help=f"selections (default: {default.rounds})"
    )
    group.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=default.seeds,
        metavar="N",
        help=f"each starts with other cases (default: {' '.join(map(str, default.seeds))})",
    )
    group.add_argument(
        "--strategies",
        nargs="+",
        choices=STRATEGY_NAMES,
        default=default.strategies,
        help=f"instead of --strategy (default: {' '.join(default.strategies)})",
    )
    add_patients_flag(group)


def simulate_options(
    arguments: argparse.Namespace, score: ScoreOptions, strategy: StrategyOptions
) -> SimulateOptions:
    """The flags as options.

    Raises:
        ValueError: if the configuration is missing, or a value out of range.
    """
    if not arguments.c:
        raise ValueError("--simulate needs the configuration to train, such as -c 2d; found none.")
    return SimulateOptions(
        dataset=arguments.simulate,
        configuration=arguments.c,
        output=Path(arguments.o),
        plans=arguments.plans,
        trainer=arguments.tr,
        fold=arguments.f,
        patients=arguments.patients,
        start=arguments.start,
        rounds=arguments.rounds,
        seeds=tuple(arguments.seeds),
        strategies=tuple(arguments.strategies),
        strategy=strategy,
        score=score,
        members=arguments.members,
        tta=arguments.tta,
        device=arguments.device,
        allow_tqdm=not arguments.disable_progress_bar,
    )
