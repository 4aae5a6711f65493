"""Resampling of logits to the image: ours in torch against nnU-Net's, both on the same volume in one process.

    python benchmarks/export.py [--classes 25] [--before 80 128 128] [--after 160 256 256] [--repeats 3]
        [-o export.json]

Prints the median times, their ratio and the largest difference.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

from nnunet_ext.inference.linear_resampling import resample_linear

PLANNED = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}  # by nnU-Net's planner
ISOTROPIC, THICK_SLICES = (1.0, 1.0, 1.0), (8.0, 1.0, 1.0)


def main() -> None:
    """Measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=25)
    parser.add_argument("--before", nargs=3, type=int, default=[80, 128, 128])
    parser.add_argument("--after", nargs=3, type=int, default=[160, 256, 256])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", type=Path, default=Path("export.json"))
    options = parser.parse_args()
    logits = torch.randn((options.classes, *options.before), generator=torch.Generator().manual_seed(0))
    results = {}
    print(f"{'':16}{'nnU-Net, s':>12}{'ours, s':>10}{'ratio':>8}{'difference':>12}")
    for name, spacing_mm in (("isotropic", ISOTROPIC), ("thick slices", THICK_SLICES)):
        ways: dict[str, Callable[[], np.ndarray]] = {
            "stock": lambda spacing=spacing_mm: resample_data_or_seg_to_shape(
                logits.numpy(), options.after, spacing, spacing, **PLANNED
            ),
            "ours": lambda spacing=spacing_mm: resample_linear(logits, options.after, spacing, spacing).numpy(),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        outcome: dict[str, np.ndarray] = {}
        for _ in range(options.repeats):
            for way, resample in ways.items():
                start = time.perf_counter()
                outcome[way] = resample()
                seconds[way].append(time.perf_counter() - start)
        difference = float(np.abs(outcome["stock"] - outcome["ours"]).max())
        stock_s, ours_s = median(seconds["stock"]), median(seconds["ours"])
        print(f"{name:16}{stock_s:12.2f}{ours_s:10.2f}{stock_s / ours_s:8.1f}{difference:12.1e}")
        results[name] = {**seconds, "ratio": stock_s / ours_s, "largest_difference": difference}
    options.o.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
