"""Compares the prediction of a large image with many classes within a ceiling of memory with stock nnU-Net.

    python benchmarks/many_classes.py [--classes 61] [--shape 400 512 512] [--max-memory 8] [--keep-free 6]
        [-o many_classes.json] [--page docs/performance.md]

- ours: `nnunet_ext predict --max-memory GIB`, with the segmentation and the row in cases.csv
- stock: `nnUNetv2_predict_from_modelfolder` with one process for each of its pools; of these its export is from the
  moment when it sends the logits to the worker until it ends

Both run the same small network with random weights on the CPU without mirroring, as whole processes, one after the
other. The image is smooth noise at 0.75 x 0.75 x 1 mm, and the network's spacing is coarser (3 mm). The peak is the
largest sum over all processes of their resident memory, with shared pages counted once (PSS), sampled every 0.2 s. A
process is ended when the machine has less than --keep-free GiB left, which is then said instead of its time. Where
the labels differ, the image is predicted again to find how far apart the logits of the two labels are. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
from inference import defaults, stock_program
from page import machine_text, write_section
from random_model import write_folds
from torch.nn import functional

from nnunet_ext.inference.accumulation.case_frame import CaseFrame
from nnunet_ext.inference.accumulation.slabs import Slab, for_each_slab
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.prediction_folder.cases import find_cases

SPACING_MM = (1.0, 0.75, 0.75)  # (z, y, x)
FEATURES, PATCH = (8, 16, 32), (64, 64, 64)
SAMPLED_EVERY_S = 0.2
SENT_TO_EXPORT = "sending off prediction"  # what stock prints after the network's last tile
GIB = 2**30


@dataclass
class Run:
    """What one prediction took.

    Attributes:
        wall_s: from start to end, in s.
        export_s: from the line that stock prints before its export to the end, in s; None without this line.
        peak_gib: the largest memory of all processes together.
        ended: why it was ended early; "" if it was not.
    """

    wall_s: float
    export_s: float | None
    peak_gib: float
    ended: str = ""


def main() -> None:
    """Runs both, prints a Markdown table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=61)
    parser.add_argument("--shape", nargs=3, type=int, default=[400, 512, 512], help="of the image, (z, y, x)")
    parser.add_argument("--network-spacing", type=float, default=3.0, help="in mm (default: 3)")
    parser.add_argument("--max-memory", type=float, default=8.0, help="GiB for ours (default: 8)")
    parser.add_argument("--keep-free", type=float, default=6.0, help="GiB that the machine must have left")
    parser.add_argument("--only-ours", action="store_true", help="leave out stock")
    parser.add_argument("-o", type=Path, default=Path("many_classes.json"))
    parser.add_argument("--page", type=Path, help="a Markdown page to put the table into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folds(
            folder / "model", 1, features=FEATURES, patch=PATCH, classes=options.classes,
            spacing_mm=(options.network_spacing,) * 3,
        )  # fmt: skip
        write_smooth_image(folder / "images", options.shape)
        runs = {"ours": measured(ours(folder, options.max_memory), options.keep_free)}
        differing: dict[str, float] = {}
        if not options.only_ours:
            runs["stock"] = measured(stock(folder), options.keep_free)
            if not runs["ours"].ended and not runs["stock"].ended:
                differing = differences(folder)
    lines = table(runs, differing, options)
    print(*lines, sep="\n")
    record = {
        "shape": options.shape,
        "classes": options.classes,
        "runs": {way: asdict(run) for way, run in runs.items()},
    }
    options.o.write_text(json.dumps(record | {"labels": differing}, indent=2))
    if options.page is not None:
        command = " ".join(["python", "benchmarks/many_classes.py", *sys.argv[1:]])
        section = "\n".join([*lines, "", "```", command, "```"])
        write_section(options.page, "benchmarks/many_classes.py", "Many classes", section)


def ours(folder: Path, max_memory: float) -> list[str]:
    """The command of `nnunet_ext predict`."""
    return [sys.executable, "-m", "nnunet_ext", "predict", "-i", str(folder / "images"), "-o", str(folder / "ours"),
            "-m", str(folder / "model"), "-device", "cpu", "--disable_tta", "--maps", "none", "--max-memory",
            str(max_memory)]  # fmt: skip


def stock(folder: Path) -> list[str]:
    """The command of stock nnU-Net."""
    return [stock_program(), "-i", str(folder / "images"), "-o", str(folder / "stock"), "-m",
            str(folder / "model"), "-f", "0", "-device", "cpu", "--disable_tta", "-npp", "1",
            "-nps", "1"]  # fmt: skip


def measured(command: Sequence[str], keep_free_gib: float) -> Run:
    """Runs a command and measures it.

    Raises:
        RuntimeError: if it fails.
    """
    start = time.perf_counter()
    environment = defaults() | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )
    sampler = Sampler(process, keep_free_gib)
    sampler.start()
    sent, output = None, []
    for line in process.stdout or ():
        output.append(line)
        if line.startswith(SENT_TO_EXPORT):
            sent = time.perf_counter()
    failed = process.wait() != 0
    end = time.perf_counter()
    sampler.join()
    if failed and not sampler.ended:
        raise RuntimeError(f"{' '.join(command)} failed:\n{''.join(output)[-3000:]}")
    return Run(end - start, None if sent is None else end - sent, sampler.peak / GIB, sampler.ended)


class Sampler(threading.Thread):
    """Watches the memory of a process and its children, and ends them before the machine runs out of memory."""

    def __init__(self, process: subprocess.Popen[str], keep_free_gib: float) -> None:
        super().__init__(daemon=True)
        self.process = process
        self.keep_free_gib = keep_free_gib
        self.peak = 0
        self.ended = ""

    def run(self) -> None:
        """Samples until the process has ended."""
        while self.process.poll() is None:
            self.peak = max(self.peak, memory_of(self.process.pid))
            if memory_figures(Path("/proc/meminfo"))["MemAvailable"] < self.keep_free_gib * GIB and not self.ended:
                self.ended = (
                    f"ended at {self.peak / GIB:.1f} GiB, when the machine had {self.keep_free_gib:g} GiB left"
                )
                os.killpg(self.process.pid, signal.SIGKILL)  # the session that was started for it
            time.sleep(SAMPLED_EVERY_S)


def memory_of(session: int) -> int:
    """Bytes of all processes of a session; pages that several of them share count once."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) == session:
                total += memory_figures(process / "smaps_rollup").get("Pss", 0)
        except OSError:  # it has ended
            continue
    return total


def memory_figures(file: Path) -> dict[str, int]:
    """Name to bytes of the lines of `/proc/meminfo` or of a process's status that are in kB."""
    rows = (line.split() for line in file.read_text().splitlines() if line.endswith(" kB"))
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows}


def write_smooth_image(folder: Path, shape: Sequence[int]) -> None:
    """Writes one image of noise with structures of about 16 voxels."""
    folder.mkdir(parents=True)
    coarse = torch.randn(1, 1, *(size // 16 + 2 for size in shape), generator=torch.Generator().manual_seed(0))
    voxels = 100 + 20 * functional.interpolate(coarse, size=tuple(shape), mode="trilinear")[0, 0].numpy()
    image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), np.diag([*SPACING_MM[::-1], 1.0]))
    nibabel.save(image, folder / "case_0000.nii.gz")


def differences(folder: Path) -> dict[str, float]:
    """The share of voxels with other labels than stock's, and by how much their logits differ there, at most."""
    labels = [
        torch.from_numpy(np.ascontiguousarray(np.asarray(nibabel.load(folder / way / "case.nii.gz").dataobj).T))
        for way in ("ours", "stock")
    ]
    engine = EnsembleEngine.from_model_folders(folder / "model", device="cpu", tta="none", allow_tqdm=False)
    prepared = engine.prepare(find_cases(folder / "images", ".nii.gz")[0])
    logits = engine.runners[0].logits(engine.passes[0][0], prepared[0].tiled)
    volume = CaseFrame(engine.models, prepared).in_box(0, logits, torch.zeros(len(logits)))
    gaps, largest_logits, counts = [0.0], [0.0], [0]

    def compare(slab: Slab) -> None:
        ours, theirs = (each[slab.where].long()[None] for each in labels)
        of_ours, of_theirs = slab.values.gather(0, ours), slab.values.gather(0, theirs)
        differ = ours != theirs
        counts.append(int(differ.sum()))
        if differ.any():
            gaps.append(float((of_ours - of_theirs)[differ].abs().max()))
            largest_logits.append(float(of_ours[differ].abs().max()))

    for_each_slab(volume, compare)
    return {
        "voxels": sum(counts),
        "share": sum(counts) / labels[0].numel(),
        "largest_gap_of_logits": max(gaps),
        "largest_logit": max(largest_logits),
    }


def ratios(runs: dict[str, Run], way: str) -> str:
    """Two cells, stock by ours: the time of its export by the whole time of ours, and the peaks."""
    stock = runs.get("stock")
    if way != "ours" or stock is None or stock.export_s is None:
        return " | "
    over = "over " if stock.ended else "at least "
    return f"{over}{stock.export_s / runs[way].wall_s:.1f} | {over}{stock.peak_gib / runs[way].peak_gib:.1f}"


def table(runs: dict[str, Run], differing: dict[str, float], options: argparse.Namespace) -> list[str]:
    """The Markdown table and what it says about the labels."""
    z, y, x = options.shape
    lines = [
        f"{x} x {y} x {z} voxels, {options.classes} classes, network at {options.network_spacing:g} mm, "
        f"`--max-memory {options.max_memory:g}`, on {machine_text('cpu')}:",
        "",
        "| | s | of these export | peak, GiB | stock / ours: export | peak |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for way, run in runs.items():
        over = "over " if run.ended else ""
        export = "" if run.export_s is None else f"{over}{run.export_s:.1f}"
        lines.append(
            f"| {way} | {run.ended or f'{run.wall_s:.1f}'} | {export} | {run.peak_gib:.2f} | {ratios(runs, way)} |"
        )
    if differing:
        lines += [
            "",
            f"{differing['voxels']:.0f} voxels ({differing['share']:.1e} of all) have other labels than stock's; the "
            f"logits of the two labels are at most {differing['largest_gap_of_logits']:.1g} apart there, and at most "
            f"{differing['largest_logit']:.2g}.",
        ]
    return lines


if __name__ == "__main__":
    main()
