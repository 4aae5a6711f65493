"""Whether uncertainty selects better cases of ACDC than foreground-aware random: `nnunet_ext select --simulate`.

    python benchmarks/active_learning.py DATA WORK

Data and network are those of the study's CPU preset. Four patients have labels at the start, each of three rounds
adds four cases, and fold 0 judges; two seeds. Every training takes 1,200 iterations. Prints the command's own table
and the difference to random; what WORK has already is not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from study.data import PLANS, number_of, prepare
from study.settings import read_study
from workspace import run, use_workspace


def main() -> None:
    """Prepares the data and replays it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of raw datasets")
    parser.add_argument("work", type=Path)
    parser.add_argument("--strategies", nargs="+", default=["power", "random"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    options = parser.parse_args()
    preset = read_study("cpu").preset
    use_workspace(options.work)
    options.work.mkdir(parents=True, exist_ok=True)
    prepare(preset, options.data.resolve())
    run("nnunet_ext", "select", "--simulate", number_of(preset.dataset), "-c", preset.configuration, "--plans", PLANS,
        "-tr", "nnUNetTrainer_12epochs_100iters", "-device", preset.device, "--patients", preset.patients, "--tta",
        "none", "--start", 8, "--number", 4, "--rounds", 3, "--strategies", *options.strategies, "--seeds",
        *options.seeds, "-o", options.work.resolve() / "simulation", "--disable_progress_bar")  # fmt: skip


if __name__ == "__main__":
    main()
