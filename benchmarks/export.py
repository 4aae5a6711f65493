"""Compares everything after the network, for one member, with nnU-Net: resampling, uncertainty and writing.

    python benchmarks/export.py [--classes 25] [--shape 160 256 256] [--repeats 3] [-o export.json]

- resampling alone, isotropic and with thick slices: torch in slabs against nnU-Net's function
- the complete export of one member's logits: segmentation, entropy map and row of the table, with maps in float32, in
  uint8 and with fast resampling, against nnU-Net's export of the segmentation without (A) and with probabilities (B)

All variants run alternately in one process; medians are reported. The logits are smooth noise at half the image's
resolution.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from random_model import write_folds, write_images
from torch.nn import functional

from nnunet_ext.inference.accumulation.case_frame import CaseFrame, PreparedCase
from nnunet_ext.inference.accumulation.case_sums import CaseSums, SumOptions
from nnunet_ext.inference.accumulation.linear_resampling import coarse_axis_of, resampled
from nnunet_ext.inference.accumulation.slabs import assembled
from nnunet_ext.inference.finish import finish, stages_for
from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.sliding_window import tile_image
from nnunet_ext.inference.transforms.flip import IDENTITY
from nnunet_ext.labels import regions_of
from nnunet_ext.machine.allocator import keep_freed_memory
from nnunet_ext.models.members import MemberRule
from nnunet_ext.models.model import load_model
from nnunet_ext.options import OutputOptions
from nnunet_ext.prediction_folder.case_files import ImageFormat, write_case
from nnunet_ext.prediction_folder.case_table import CaseTable
from nnunet_ext.prediction_folder.cases import find_cases

PLANNED = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}  # what nnU-Net's planner writes
ISOTROPIC, THICK_SLICES = (1.0, 1.0, 1.0), (8.0, 1.0, 1.0)

Ways = dict[str, Callable[[], Any]]


def main() -> None:
    """Runs both measurements, prints two tables and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=25)
    parser.add_argument("--shape", nargs=3, type=int, default=[160, 256, 256])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", type=Path, default=Path("export.json"))
    options = parser.parse_args()
    keep_freed_memory()  # as `nnunet_ext predict` does
    logits = smooth_noise(options.classes, [size // 2 for size in options.shape])
    results = {
        "resampling": resampling(logits, options.shape, options.repeats),
        "export": export(logits, options.shape, options.repeats),
    }
    options.o.write_text(json.dumps(results, indent=2))


def resampling(logits: torch.Tensor, shape: Sequence[int], repeats: int) -> dict[str, Any]:
    """Times the resampling of logits (C, *spatial) to an image of this shape."""
    results = {}
    coarse_axis = coarse_axis_of(partial(resample_data_or_seg_to_shape, **PLANNED))
    print(f"{'resampling':24}{'nnU-Net, s':>12}{'ours, s':>10}{'ratio':>8}{'difference':>12}")
    for name, spacing_mm in (("isotropic", ISOTROPIC), ("thick slices", THICK_SLICES)):
        ways: Ways = {
            "stock": lambda spacing=spacing_mm: resample_data_or_seg_to_shape(
                logits.numpy(), shape, spacing, spacing, **PLANNED
            ),
            "ours": lambda spacing=spacing_mm: assembled(
                resampled(logits, shape, spacing, spacing, coarse_axis),
                (len(logits), *shape),
            ),
        }
        seconds, outcome = timed(ways, repeats)
        difference = float(np.abs(outcome["stock"] - outcome["ours"].numpy()).max())
        print(
            f"{name:24}{seconds['stock']:12.2f}{seconds['ours']:10.2f}{seconds['stock'] / seconds['ours']:8.1f}"
            f"{difference:12.1e}"
        )
        results[name] = {**seconds, "largest_difference": difference}
    return results


def export(logits: torch.Tensor, shape: Sequence[int], repeats: int) -> dict[str, float]:
    """Times the export of one member's logits (C, *spatial) to files, for an image of this shape."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folds(
            folder / "model", 1, features=(4, 8), patch=(32, 32, 32), classes=len(logits),
            spacing_mm=(2.0, 2.0, 2.0),
        )  # fmt: skip
        write_images(folder / "images", cases=1, shape=tuple(shape), spacing_mm=(1.0, 1.0, 1.0))
        model = load_model(folder / "model", [0], MemberRule("final"), device=torch.device("cpu"))
        (case,) = find_cases(folder / "images", ".nii.gz")
        image, properties = model.preprocess(case)
        prepared = PreparedCase(tile_image(image, model.configuration.patch_size), properties)

        def ours(map_type: str, *, fast: bool = False) -> None:
            options = OutputOptions(maps=["entropy"], map_type=map_type)
            sums = CaseSums(CaseFrame([model], [prepared]), model.labels, SumOptions(fast_resampling=fast))
            sums.add(0, Pass("member", model.members[0], (IDENTITY,), 1.0), logits)
            prediction = finish("case", sums, regions_of(model.dataset_json), stages_for(options, None), options)
            output = folder / f"{map_type}_{fast}"
            image_format = ImageFormat(".nii.gz", model.plans.image_reader_writer_class())
            write_case(prediction, output, image_format, CaseTable(output, keep_existing=False), map_type)

        def stock(save_probabilities: bool) -> None:
            export_prediction_from_logits(
                logits.clone(), properties, model.configuration, model.plans, model.dataset_json,
                str(folder / f"stock_{save_probabilities}"), save_probabilities,
            )  # fmt: skip

        seconds, _ = timed(
            {
                "ours, float32 map": lambda: ours("float32"),
                "ours, uint8 map": lambda: ours("uint8"),
                "ours, uint8, --fast-resampling": lambda: ours("uint8", fast=True),
                "A, segmentation": lambda: stock(False),
                "B, with probabilities": lambda: stock(True),
            },
            repeats,
        )
    print(f"\n{'export of one member':32}{'s':>10}{'A/this':>10}{'B/this':>8}")
    for way, time_s in seconds.items():
        a, b = seconds["A, segmentation"] / time_s, seconds["B, with probabilities"] / time_s
        print(f"{way:32}{time_s:10.2f}{a:10.1f}{b:8.1f}")
    return seconds


def timed(ways: Ways, repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Runs all variants alternately; returns the median time in seconds and the last result of each."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    outcome = {}
    for _ in range(repeats):
        for way, run in ways.items():
            start = time.perf_counter()
            outcome[way] = run()
            seconds[way].append(time.perf_counter() - start)
    return {way: median(times) for way, times in seconds.items()}, outcome


def smooth_noise(classes: int, shape: Sequence[int]) -> torch.Tensor:
    """Logits (C, *shape) with structures of about 8 voxels, similar to those of a trained network."""
    coarse = torch.randn(
        (1, classes, *(max(1, size // 8) for size in shape)), generator=torch.Generator().manual_seed(0)
    )
    return 10 * functional.interpolate(coarse, size=tuple(shape), mode="trilinear")[0]


if __name__ == "__main__":
    main()
