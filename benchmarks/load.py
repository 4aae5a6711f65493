"""Many small cases through `predict` and `serve`, with everything going wrong that can: nothing lost, nothing double.

    python benchmarks/load.py [--cases 1000] [--kills 20] [--parts killed full_disk serve] [--seed 0] [-o load.json]

Every tenth file is bad. One undisturbed `nnunet_ext predict` is what everything is compared with, byte by byte:

- memory: its peak, with that of a tenth of the cases
- predict: killed with SIGKILL at random times and continued, until all cases are there
- two runs: a second run in the folder of a running one is refused and changes nothing
- disk: the same on a file system that fills up, then gets room (root on Linux only)
- serve: every case by HTTP, while the worker is killed with SIGKILL; bad files are refused
- serve, memory: peak of server and worker after a tenth of the cases and after all, undisturbed

A difference ends it with status 1. Linux only, for the peaks of running processes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from load_cases import write_cases
from load_server import peak_mib, peaks_of, served
from random_model import write_model_folder
from workspace import linked

from nnunet_ext.prediction_folder.case_table import read_cases

MEMBERS = 2
SECONDS_BETWEEN_LOOKS = 0.02  # the last look misses at most what is taken after it
TENTH = 10
PARTS = ("killed", "full_disk", "serve")
MOST_GROWTH = 1.1  # of the peak, from a tenth of the cases to all
OF_ONE_RUN = ("predict_args.json",)  # arguments and times; differ between runs


class Load:
    """The folders of a run of this script, and what it finds."""

    def __init__(self, work: Path, cases: int, kills: int, seed: int) -> None:
        self.work, self.kills, self.times = work, kills, random.Random(seed)
        write_model_folder(work / "model", MEMBERS, features=(4, 8), patch=(16, 16))
        self.images = work / "images"
        self.bad = write_cases(self.images, cases)
        self.files = sorted(self.images.iterdir())
        self.good = [name for path in self.files if (name := path.name.removesuffix("_0000.nii.gz")) not in self.bad]
        self.expected: dict[str, bytes] = {}
        self.seconds = self.seconds_of_tenth = 0.0
        self.found: dict[str, Any] = {"cases": cases, "bad": len(self.bad)}

    def predict(self, output: Path, *flags: str, images: Path | None = None) -> subprocess.Popen:
        """Starts `nnunet_ext predict`."""
        return subprocess.Popen(
            [sys.executable, "-m", "nnunet_ext", "predict", "-i", str(images or self.images), "-o", str(output),
             "-m", str(self.work / "model"), "--members", "checkpoint_c0_*.pth", "-device", "cpu",
             "--disable_tta", "--disable_progress_bar", *flags],
            stdout=subprocess.DEVNULL, stderr=(self.work / "log").open("ab"),
        )  # fmt: skip

    def require_whole(self, what: str, output: Path) -> None:
        """Compares a folder with the undisturbed one.

        Raises:
            AssertionError: a file or a row is missing, double, or different.
        """
        rows = Counter(row["case"] for row in read_cases(output / "cases.csv"))
        require(f"{what}: rows", dict(rows), dict.fromkeys(self.good, 1))
        found = content(output)
        different = sorted(name for name in self.expected if found.get(name) != self.expected[name])
        require(f"{what}: files that are missing or different", different, [])
        require(f"{what}: files too many", sorted(found.keys() - self.expected.keys()), [])

    def undisturbed(self) -> None:
        """The run that all others are compared with, and the memory of it."""
        tenth = linked(self.files[: len(self.files) // TENTH], self.work / "tenth")
        started = time.monotonic()
        few = peak_of(self.predict(self.work / "of_a_tenth", images=tenth))
        between = time.monotonic()
        many = peak_of(self.predict(self.work / "expected"))
        self.seconds_of_tenth, self.seconds = between - started, time.monotonic() - between
        self.expected = content(self.work / "expected")
        self.require_whole("undisturbed", self.work / "expected")
        self.found |= {"predict_s": self.seconds, "predict_peak_mib": [few, many], "predict_growth": many / few}
        require("memory: grows by more than 10 %", many / few > MOST_GROWTH, False)

    def killed(self) -> None:
        """Kills the run at random times and continues it; meanwhile another one asks for the same folder.

        A folder that is whole before all kills are made is compared, and begun anew.
        """
        output, kills, wholes, refused = self.work / "killed", 0, 0, False
        # From the middle of the start, which is most of the run with a tenth of the cases, to two shares of work.
        work = max(self.seconds - self.seconds_of_tenth, 0)
        latest = self.seconds_of_tenth + 2 * work / self.kills
        while kills < self.kills:
            process = self.predict(output, "--continue_prediction")
            with suppress(subprocess.TimeoutExpired):
                process.wait(self.times.uniform(self.seconds_of_tenth / 2, latest))
            if process.poll() is None and not refused:
                refused = self.refused_second_run(output)
            process.kill()
            if process.wait() < 0:
                kills += 1
                self.require_no_half_files(output)
            else:
                wholes += 1
                self.require_whole("killed", output)
                shutil.rmtree(output)
        require("killed: exit status of the last run", self.predict(output, "--continue_prediction").wait(), 1)
        self.require_whole("killed", output)
        self.found |= {"predict_kills": kills, "predict_wholes": wholes + 1, "second_run_refused": refused}

    def require_no_half_files(self, output: Path) -> None:
        """All files of a killed run but the table, which a later run completes, are those of the undisturbed one."""
        whole = (
            {name: data for name, data in content(output).items() if name != "cases.csv"} if output.is_dir() else {}
        )
        require("killed: files that are not whole", whole.items() <= self.expected.items(), True)

    def refused_second_run(self, output: Path) -> bool:
        """Starts another run in the folder of a running one; False if that had ended before."""
        log = self.work / "log"
        seen = log.stat().st_size
        status = self.predict(output).wait()
        refused = "in use" in log.read_bytes()[seen:].decode()
        require("two runs: exit status of the second", status, 1)
        return refused

    def full_disk(self) -> None:
        """A disk that holds a third of the results, then all of them."""
        needed = sum(-(-len(data) // 4096) * 4096 for data in self.expected.values())
        with small_disk(self.work / "disk", needed // 3) as grow:
            if grow is None:
                self.found["disk"] = "not mounted"
                return
            output = self.work / "disk" / "out"
            require("disk: exit status while it is full", self.predict(output).wait() != 0, True)
            whole = {name: data for name, data in content(output).items() if name != "cases.csv"}
            require("disk: files that are not whole", whole.items() <= self.expected.items(), True)
            complete = len(list(output.glob("*.nii.gz")))
            grow(4 * needed)
            require("disk: exit status with room", self.predict(output, "--continue_prediction").wait(), 1)
            self.require_whole("disk", output)
            self.found["disk"] = {"complete_when_full": complete}

    def serve(self) -> None:
        """Every case by HTTP: undisturbed for the memory, then with kills."""
        tenth = len(self.files) // TENTH
        with served(self.work / "model", self.work / "log") as server:
            started = time.monotonic()
            for number, path in enumerate(self.files, start=1):
                self.require_same_answer(path, server.post(path))
                if number == tenth:
                    few = peaks_of(server)
            seconds, many = time.monotonic() - started, peaks_of(server)
        growth = {name: many[name] / few[name] for name in many}
        self.found |= {"serve_s": seconds, "serve_peak_mib": [few, many], "serve_growth": growth}
        require("serve: memory grows by more than 10 %", max(growth.values()) > MOST_GROWTH, False)
        disturbed = set(self.times.sample(range(len(self.files)), self.kills))
        with served(self.work / "model", self.work / "log") as server:
            hit = 0
            for number, path in enumerate(self.files):
                delay = self.times.uniform(0, seconds / len(self.files))
                kill = server.kill_worker_after(delay) if number in disturbed else None
                self.require_same_answer(path, server.post(path))
                hit += kill is not None and kill()
        self.found |= {"serve_kills": self.kills, "serve_kills_while_predicting": hit}

    def require_same_answer(self, path: Path, answer: tuple[int, dict[str, bytes]]) -> None:
        """Compares an answer of the server with the files of the undisturbed prediction."""
        case, (status, files) = path.name.removesuffix("_0000.nii.gz"), answer
        require(f"serve: status of {case}", status, 422 if case in self.bad else 200)
        for name, data in files.items():
            expected = self.expected[name.replace("case.", f"{case}.")]
            require(f"serve: {name} of {case} is the same", data == expected, True)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of an output folder under its final name."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes()
        for name, path in sorted(files.items())
        if name not in OF_ONE_RUN and not any(part.startswith(".") for part in Path(name).parts)
    }


def peak_of(process: subprocess.Popen) -> float:
    """Waits for a run with bad cases in it, and returns its largest resident set in MiB."""
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, peak_mib(process.pid))  # a process that has just ended gives NaN, which max leaves out
        time.sleep(SECONDS_BETWEEN_LOOKS)
    require("exit status of a run with bad cases", process.returncode, 1)
    return peak


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[int], None] | None]:
    """Mounts a file system of that many bytes; yields what gives it another size, None if that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    allowed = (
        shutil.which("mount")
        and not subprocess.run([*mount, f"size={size}", "tmpfs", str(folder)], capture_output=True).returncode
    )
    if not allowed:
        yield None
        return

    def grow(larger: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={larger}", str(folder)], check=True)

    try:
        yield grow
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def require(what: str, found: object, expected: object) -> None:
    """Ends the script where something is not as it should be.

    Raises:
        AssertionError: with what was found.
    """
    if found != expected:
        raise AssertionError(f"{what}: found {str(found)[:500]}, expected {str(expected)[:500]}")


def main() -> None:
    """Runs all parts, prints what they found and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="after the undisturbed run")
    parser.add_argument("-o", type=Path, default=Path("load.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        load = Load(Path(name), options.cases, options.kills, options.seed)
        for part in ("undisturbed", *options.parts):
            started = time.monotonic()
            getattr(load, part)()
            print(f"{part} ({time.monotonic() - started:.0f} s)", json.dumps(load.found), flush=True)
    options.o.write_text(json.dumps(load.found, indent=2) + "\n")


if __name__ == "__main__":
    main()
