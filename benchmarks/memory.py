"""Compares the peak memory of `nnunet_ext predict` with few and with many members.

    python benchmarks/memory.py [--few 2] [--many 20] [--repeats 3] [-o memory.json]

The weights of all members are memory-mapped and count as resident once they were used; the second column excludes
them. Each measurement is the largest resident set of its own process, and the two alternate. Linux and macOS only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from inference import MAXRSS_UNIT_BYTES
from random_model import write_images, write_model_folder

FEATURES = (32, 64, 128, 256, 320, 320)
PATCH = (128, 128)


def peak_mib(arguments: list[str]) -> float:
    """Runs a process and returns its largest resident set in MiB."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"{' '.join(arguments)} failed.")
    return usage.ru_maxrss * MAXRSS_UNIT_BYTES / 2**20


def main() -> None:
    """Runs the measurements, prints a table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=2)
    parser.add_argument("--many", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", type=Path, default=Path("memory.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parameters = write_model_folder(folder / "model", options.many, features=FEATURES, patch=PATCH)
        write_images(folder / "images", cases=1, shape=(6, 160, 160))
        peaks: dict[int, list[float]] = {options.few: [], options.many: []}
        for repeat in range(options.repeats):
            for members, measured in peaks.items():
                measured.append(
                    peak_mib(
                        [sys.executable, "-m", "nnunet_ext", "predict", "-i", str(folder / "images"),
                         "-o", str(folder / f"out_{members}_{repeat}"), "-m", str(folder / "model"),
                         "--members", f"checkpoint_c0_*.pth:{members}", "-device", "cpu", "--disable_tta",
                         "--maps", "entropy", "mutual_information"]
                    )
                )  # fmt: skip
    weights_mib = parameters * 4 / 2**20
    beyond = {members: median(measured) - members * weights_mib for members, measured in peaks.items()}
    ratio = beyond[options.many] / beyond[options.few]
    print(f"One member's weights: {weights_mib:.0f} MiB ({parameters / 1e6:.1f} M parameters)")
    print(f"{'members':>7}{'peak, MiB':>12}{'beyond weights':>17}{'all':>8}")
    for members, measured in peaks.items():
        everything = ", ".join(f"{value:.0f}" for value in measured)
        print(f"{members:7}{median(measured):12.0f}{beyond[members]:17.0f}   {everything}")
    print(f"{'ratio':>7}{ratio:29.3f}")
    options.o.write_text(
        json.dumps({"peaks_mib": peaks, "weights_mib_per_member": weights_mib, "ratio": ratio}, indent=2)
    )


if __name__ == "__main__":
    main()
