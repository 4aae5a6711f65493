"""Trains, predicts and evaluates every method of a study that is not done, and writes its pages.

    python benchmarks/run_study.py cpu DATA WORK                 # DATA has the raw datasets
    python benchmarks/run_study.py cpu DATA WORK --hours 8 --processes 2
    python benchmarks/run_study.py cpu DATA WORK --only "stock" "flips"
    python benchmarks/run_study.py cpu DATA WORK --examples      # with pictures of the worst cases
    python benchmarks/run_study.py cpu --pages                   # only the pages, from the results that are there

`--processes` runs several cells at a time, one per core or as many as a GPU holds; a cell that another process works
on is left to it. Each cell is a method with one seed: stock `nnUNetv2_train`, then `nnunet_ext predict` and
`evaluate`. Its result is a JSON file in benchmarks/study/results, written at its end; a cell with a result is not run
again, also if another preset has it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout
from study.cells import cells_of, take_over
from study.data import prepare
from study.pages import write_pages
from study.running import Places, run_cell
from study.settings import Study, read_study
from workspace import use_workspace


def main() -> None:
    """Runs what is missing within the time, then writes the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", help="a file of benchmarks/study/presets, without .toml")
    parser.add_argument("data", type=Path, nargs="?", help="folder of raw datasets")
    parser.add_argument("work", type=Path, nargs="?", help="folder for all that is trained and predicted")
    parser.add_argument("--hours", type=float, default=float("inf"), help="begin no cell after this time")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="names of methods")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="only these of the preset")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="cells at a time; default: 1")
    parser.add_argument("--examples", action="store_true", help="also report pages of the worst cases, in WORK/cells")
    parser.add_argument("--pages", action="store_true", help="run nothing")
    options = parser.parse_args()
    study = read_study(options.preset)
    if not options.pages:
        if options.work is None:
            parser.error("DATA and WORK are needed to run cells; --pages alone needs neither")
        others = [
            subprocess.Popen([sys.executable, *sys.argv, "--processes", "1"]) for _ in range(1, options.processes)
        ]
        run_missing(study, options)
        failed = [other.returncode for other in others if other.wait()]
        if failed:
            sys.exit(f"All cells must succeed; {len(failed)} of {options.processes} processes stopped, see above.")
    write_pages(study)


def run_missing(study: Study, options: argparse.Namespace) -> None:
    """Runs the cells without a result that no other process works on."""
    places = Places(options.data.resolve(), options.work.resolve(), options.examples)
    work = places.work
    use_workspace(work)
    work.mkdir(parents=True, exist_ok=True)
    with FileLock(work / "prepare.lock"):
        prepare(study.preset, places.source)
    last_start = time.monotonic() + options.hours * 3600
    for cell in cells_of(study):
        wanted = options.only is None or cell.method.name in options.only
        wanted = wanted and (options.seeds is None or cell.seed in options.seeds)
        if not wanted or take_over(study, cell) or time.monotonic() > last_start:
            continue
        try:
            with FileLock(work / f"{study.name}_{cell.name}.lock", timeout=0):
                if not take_over(study, cell):
                    run_cell(study, cell, places)
                    with FileLock(work / "pages.lock"):
                        write_pages(study)
        except Timeout:
            continue


if __name__ == "__main__":
    main()
