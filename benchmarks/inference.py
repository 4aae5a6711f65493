"""Compares prediction with uncertainty with what stock nnU-Net offers, on the same weights and images.

    python benchmarks/inference.py [--scenes hippocampus acdc] [--members 1 5] [--repeats 1] [--without-b]
        [-device cuda] [--runtimes torch openvino] [--precisions stock fp32 bf16] [--page docs/performance.md]

- RUNTIME PRECISION: `nnunet_ext predict`, with segmentation, entropy map and table of cases; one row for each of the
  runtimes and precisions. stock is nnU-Net's precision: fp32 on the CPU, fp16 autocast on CUDA, where OpenVINO is
  left out
- A: `nnUNetv2_predict` with the members as folds, segmentation only
- B: `nnUNetv2_predict --save_probabilities` once per member, then a script that averages the probabilities and
  computes the entropy

Each is measured end to end as separate processes, one at a time. All rows run in turn before any is repeated, and
every repeat begins with another row, so that other load falls on all of them. Wall time, CPU time of all processes
and the largest resident set of a process are written as JSON, and the medians are printed as a table; --page puts it
into its section of a page, one for the CPU and one for the GPU, with the machine and the commands. --add lets several
runs fill one table. Weights are random. Linux and macOS only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import nibabel
import numpy as np
from page import machine_text, write_section
from random_model import write_folds, write_images

STOCK = "stock"  # the precision of stock nnU-Net
HEADER = "| | members | | s | A / this | CPU s | MiB | labels as A |"
RULE = "|---|---:|---|" + 5 * "---:|"
TITLES = {"cpu": "Runtimes and precisions on the CPU", "cuda": "Runtimes and precisions on the GPU"}
MAXRSS_UNIT_BYTES = 1024 if sys.platform == "linux" else 1  # ru_maxrss is in KiB on Linux and in bytes on macOS


@dataclass(frozen=True)
class Scene:
    """A network and images to predict; shapes and spacings are along (z, y, x)."""

    features: tuple[int, ...]
    patch: tuple[int, ...]
    shape: tuple[int, int, int]
    classes: int
    cases: int
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    network_spacing_mm: tuple[float, ...] | None = None


SCENES = {
    "hippocampus": Scene((32, 64, 128, 256), (40, 56, 40), (36, 50, 35), classes=3, cases=2),
    "acdc": Scene(
        (32, 64, 128, 256, 512, 512), (256, 224), (10, 256, 216), classes=4, cases=1, spacing_mm=(5.0, 1.0, 1.0)
    ),
    "ct": Scene(
        (8, 16, 32), (64, 64, 64), (120, 256, 256), classes=25, cases=1, spacing_mm=(1.5, 0.8, 0.8),
        network_spacing_mm=(3.0, 3.0, 3.0),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """The cost of one prediction: wall time in s, CPU time of all processes in s, largest process in MiB."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def main() -> None:
    """Runs the measurements, prints a Markdown table and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--members", nargs="+", type=int, default=[1, 5])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument(
        "--without-b", action="store_true", help="leave out B, which takes as long as everything else"
    )
    parser.add_argument("-device", choices=("cpu", "cuda"), default="cpu", help="device for ours, A and B")
    parser.add_argument("--runtimes", nargs="+", choices=("torch", "openvino", "auto"), default=["torch"])
    parser.add_argument("--precisions", nargs="+", choices=(STOCK, "fp32", "bf16", "auto"), default=[STOCK])
    parser.add_argument("-o", type=Path, default=Path("inference.json"))
    parser.add_argument("--add", action="store_true", help="keep what -o holds of other scenes and members")
    parser.add_argument("--page", type=Path, help="a Markdown page to put the table into")
    options = parser.parse_args()
    rows = rows_of(options.device, options.runtimes, options.precisions)
    record = earlier(options.o, options.device) if options.add else new_record(options.device)
    record["commands"].append(" ".join(["python", "benchmarks/inference.py", *sys.argv[1:]]))
    print(HEADER, RULE, sep="\n")
    for name in options.scenes:
        for members in options.members:
            found = measure(
                SCENES[name], members, options.repeats, rows, options.device, with_b=not options.without_b
            )
            result = {"scene": name, "members": members, **found}
            kept = [other for other in record["results"] if (other["scene"], other["members"]) != (name, members)]
            record["results"] = sorted([*kept, result], key=place_in_table)
            print(*table_rows(result), sep="\n", flush=True)
            options.o.write_text(json.dumps(record, indent=2))  # after each, so that nothing is lost
    if options.page is not None:
        source = f"benchmarks/inference.py, {options.device}"
        write_section(options.page, source, TITLES[options.device], section_of(record))


def place_in_table(result: dict[str, Any]) -> tuple[int, int]:
    """Sorts results by scene, in the order of `SCENES`, then by the number of members."""
    return list(SCENES).index(result["scene"]), result["members"]


def new_record(device: str) -> dict[str, Any]:
    """A record without results."""
    return {"device": device, "machine": machine_text(device), "commands": [], "results": []}


def earlier(file: Path, device: str) -> dict[str, Any]:
    """The record that an earlier run wrote, to add to.

    Raises:
        ValueError: if it is of another machine, so that its times cannot stand in one table.
    """
    if not file.is_file():
        return new_record(device)
    record: dict[str, Any] = json.loads(file.read_text())
    if record["machine"] != machine_text(device):
        raise ValueError(
            f"Only times of one machine can be compared; {file} is of {record['machine']!r}, and this is "
            f"{machine_text(device)!r}. Leave out --add, or take another -o."
        )
    return record


def section_of(record: dict[str, Any]) -> str:
    """What the page says of a record: the machine, the table, and the commands that repeat it."""
    repeats = sorted({len(cost) for result in record["results"] for cost in result["costs"].values()})
    runs = " or ".join(map(str, repeats))
    rows = [row for result in record["results"] for row in table_rows(result)]
    commands = dict.fromkeys(record["commands"])
    head = f"Medians of {runs} runs on {record['machine']}."
    return "\n".join([head, "", HEADER, RULE, *rows, "", "```", *commands, "```"])


def rows_of(device: str, runtimes: Sequence[str], precisions: Sequence[str]) -> dict[str, list[str]]:
    """Name of every row of ours to its flags."""
    rows = {}
    for runtime in ["torch"] if device == "cuda" else runtimes:
        for precision in precisions:
            chosen = [] if precision == STOCK else ["--precision", precision]
            rows[f"{runtime} {precision}"] = ["-device", device, "--runtime", runtime, *chosen]
    return rows


def table_rows(result: dict[str, Any]) -> list[str]:
    """The rows of the Markdown table for a scene, with the medians of the runs."""
    name, members, costs, same_labels = (result[key] for key in ("scene", "members", "costs", "same_labels"))
    medians = {way: {key: median(cost[key] for cost in of_way) for key in of_way[0]} for way, of_way in costs.items()}
    return [
        f"| {name} | {members} | {way} | {cost['wall_s']:.1f} | {medians['A']['wall_s'] / cost['wall_s']:.2f} | "
        f"{cost['cpu_s']:.0f} | {cost['peak_mib']:.0f} | {f'{same_labels[way]:.2%}' if way in same_labels else ''} |"
        for way, cost in medians.items()
    ]


def measure(
    scene: Scene, members: int, repeats: int, rows: dict[str, list[str]], device: str, *, with_b: bool
) -> dict[str, dict]:
    """Costs of every row of ours, of A and B, and the share of voxels that a row of ours labels as A does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folds(
            folder / "model", members, features=scene.features, patch=scene.patch, classes=scene.classes,
            spacing_mm=scene.network_spacing_mm,
        )  # fmt: skip
        write_images(folder / "images", cases=scene.cases, shape=scene.shape, spacing_mm=scene.spacing_mm)
        ways: dict[str, Callable[[Path], list[resource.struct_rusage]]] = {
            way: partial(ours, folder, members=members, machine=flags) for way, flags in rows.items()
        }
        ways["A"] = lambda output: stock(folder, output, range(members), device)
        if with_b:
            ways["B"] = lambda output: stock_and_script(folder, output, members, device)
        costs: dict[str, list[dict]] = {way: [] for way in ways}
        for repeat in range(repeats):
            start = repeat % len(ways)
            for way in [*ways, *ways][start : start + len(ways)]:
                costs[way].append(asdict(cost_of(ways[way], folder / f"{way}_{repeat}")))
        same_labels = {way: agreement(folder / f"{way}_0", folder / "A_0") for way in rows}
        return {"costs": costs, "same_labels": same_labels}


def cost_of(predict: Callable[[Path], list[resource.struct_rusage]], output: Path) -> Cost:
    """Runs one prediction and measures what its processes and their children used."""
    start = time.perf_counter()
    usages = predict(output)
    return Cost(
        wall_s=time.perf_counter() - start,
        cpu_s=sum(usage.ru_utime + usage.ru_stime for usage in usages),
        peak_mib=max(usage.ru_maxrss for usage in usages) * MAXRSS_UNIT_BYTES / 2**20,
    )


def ours(folder: Path, output: Path, *, members: int, machine: Sequence[str]) -> list[resource.struct_rusage]:
    """Runs `nnunet_ext predict`, averaging logits as stock nnU-Net does, so that the labels can be compared."""
    return run([sys.executable, "-m", "nnunet_ext", "predict", "-i", str(folder / "images"), "-o", str(output),
         "-m", str(folder / "model"), "-f", *map(str, range(members)), "--average", "logits", "--maps", "entropy",
         *machine, "--disable_progress_bar"])  # fmt: skip


def stock(folder: Path, output: Path, folds: Sequence[int], device: str, *more: str) -> list[resource.struct_rusage]:
    """Runs `nnUNetv2_predict` with its defaults."""
    return run([stock_program(), "-i", str(folder / "images"), "-o", str(output), "-m", str(folder / "model"),
         "-f", *map(str, folds), "-device", device, *more])  # fmt: skip


def stock_program() -> str:
    """Stock nnU-Net's program for model folders.

    Raises:
        RuntimeError: if it is missing.
    """
    program = shutil.which("nnUNetv2_predict_from_modelfolder", path=str(Path(sys.executable).parent))
    if program is None:
        raise RuntimeError(
            "nnUNetv2_predict_from_modelfolder must be installed next to this Python; found none. Install nnunetv2."
        )
    return program


def stock_and_script(folder: Path, output: Path, members: int, device: str) -> list[resource.struct_rusage]:
    """Runs stock nnU-Net once per member, then the script that a user would write to compute the entropy."""
    usages = [usage for fold in range(members) for usage in stock(folder, output / str(fold), [fold], device, SAVE)]
    return usages + run([sys.executable, "-c", ENTROPY_SCRIPT, str(output), str(members)])


SAVE = "--save_probabilities"

ENTROPY_SCRIPT = """
import sys, numpy as np, pathlib
output, members = pathlib.Path(sys.argv[1]), int(sys.argv[2])
for file in sorted((output / "0").glob("*.npz")):
    files = [output / str(member) / file.name for member in range(members)]
    mean = sum(np.load(file)["probabilities"].astype(np.float32) for file in files) / members
    np.save(output / file.stem, -(mean * np.log(np.maximum(mean, 1e-12))).sum(0))
    np.save(output / (file.stem + "_labels"), mean.argmax(0).astype(np.uint8))
"""


def run(arguments: Sequence[str]) -> list[resource.struct_rusage]:
    """Runs a process without output and returns the resources that it and its children used."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log, env=defaults())
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status):
            log.seek(0)
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{log.read().decode()[-2000:]}")
    return [usage]


def defaults() -> dict[str, str]:
    """The environment without settings of threads and processes, so that stock nnU-Net uses its defaults."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("nnUNet", "OMP_", "MKL_"))}


def agreement(first: Path, second: Path) -> float:
    """The share of voxels with the same label in two prediction folders, over all cases."""
    same = total = 0
    for file in sorted(first.glob("*.nii.gz")):
        one, other = (np.asarray(nibabel.load(folder / file.name).dataobj) for folder in (first, second))
        same, total = same + int((one == other).sum()), total + one.size
    return same / total


if __name__ == "__main__":
    main()
