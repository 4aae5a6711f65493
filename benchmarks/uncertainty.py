"""Measures the cost of uncertainty on top of a segmentation with the same members, without resampling.

    python benchmarks/uncertainty.py [--members 5] [--repeats 3] [-o uncertainty.json]

- segmentation: averages the members' logits, as stock nnU-Net does over folds, and takes the labels
- with uncertainty: each member's probabilities, their mean, entropies and mutual information, the entropy map and the
  row of the table

Both run alternately in one process on the same prepared image, without reading and writing. Medians are reported;
weights are random.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from inference import SCENES, Scene
from random_model import write_folds, write_images

from nnunet_ext.inference.accumulation.decisions import decided_labels
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.machine.allocator import keep_freed_memory
from nnunet_ext.prediction_folder.cases import find_cases

NOT_RESAMPLED = ("hippocampus", "acdc")


def main() -> None:
    """Runs the measurements, prints a Markdown table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", type=Path, default=Path("uncertainty.json"))
    options = parser.parse_args()
    keep_freed_memory()  # as `nnunet_ext predict` does
    results = {}
    print("| | members | segmentation, s | with uncertainty, s | ratio |\n|---|---:|---:|---:|---:|")
    for name in NOT_RESAMPLED:
        results[name] = measure(SCENES[name], options.members, options.repeats)
        plain, ours = (median(results[name][way]) for way in ("segmentation", "with uncertainty"))
        print(f"| {name} | {options.members} | {plain:.2f} | {ours:.2f} | {ours / plain:.3f} |", flush=True)
    options.o.write_text(json.dumps(results, indent=2))


def measure(scene: Scene, members: int, repeats: int) -> dict[str, list[float]]:
    """Time in seconds with and without uncertainty, one value per repeat."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folds(folder / "model", members, features=scene.features, patch=scene.patch, classes=scene.classes)
        write_images(folder / "images", cases=1, shape=scene.shape, spacing_mm=scene.spacing_mm)
        engine = EnsembleEngine.from_model_folders(folder / "model", device="cpu", allow_tqdm=False)
        (case,) = find_cases(folder / "images", ".nii.gz")
        [prepared] = engine.prepare(case)

        def segmentation() -> torch.Tensor:
            total = torch.zeros(())
            for step in engine.passes[0]:
                total = total + engine.runners[0].logits(step, prepared.tiled)
            return decided_labels(total, engine.models[0].labels)

        ways: dict[str, Callable[[], object]] = {
            "segmentation": segmentation,
            "with uncertainty": lambda: engine.predict_case("case", [prepared]),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for repeat in range(repeats + 1):
            for way, run in ways.items():
                start = time.perf_counter()
                run()
                if repeat:  # the first repeat warms up
                    seconds[way].append(time.perf_counter() - start)
        return seconds


if __name__ == "__main__":
    main()
