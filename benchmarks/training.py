"""Compares trainers with plain nnU-Net: time per training iteration and peak memory.

    python benchmarks/training.py [--trainers nnUNetTrainerDSD nnUNetTrainerDSD_FullResolution] [--patch 40 56 40]
        [--features 32 64 128 256] [--batch 2] [--iterations 5] [--repeats 3] [--device cpu] [-o training.json]

Each measurement trains on random images of nested balls in its own process, and the trainers alternate. Time includes
what the loader computes for loss terms, as with nnUNet_n_proc_DA=0. Memory is the growth of the
largest resident set during the iterations (on CUDA, of the allocator's peak), without the libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from inference import MAXRSS_UNIT_BYTES
from random_model import random_dataset_json, random_plans

PLAIN = "nnUNetTrainer"
WARM_UP_ITERATIONS = 2
AFTER_AN_EPOCH = dict.fromkeys(["soft Dice loss", "HausdorffDT", "HausdorffErosion", "HausdorffConv"], 1.0)


def measure(options: argparse.Namespace, trainer_name: str) -> dict[str, float]:
    """Median seconds per iteration, peak memory in MiB and parameters of one trainer, in this process."""
    from nnunet_ext.trainers.names import trainer_class

    device = torch.device(options.device)
    plans = random_plans(tuple(options.features), tuple(options.patch), batch_size=options.batch)
    [configuration] = plans["configurations"]
    torch.manual_seed(0)
    trainer = trainer_class(trainer_name)(plans | {"continue_training": False}, configuration, 0,
                                          random_dataset_json(), device=device)  # fmt: skip
    trainer.initialize()
    trainer.network.train()
    if hasattr(trainer, "loss_with_terms"):
        trainer.loss_with_terms.set_epoch(trainer.num_epochs - 1, trainer.num_epochs, AFTER_AN_EPOCH)
    batch = random_batch(trainer, options)
    before = peak_bytes(device)
    seconds = []
    for _ in range(WARM_UP_ITERATIONS + options.iterations):
        start = time.perf_counter()
        trainer.train_step(with_extra_targets(trainer, batch))
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": median(seconds[WARM_UP_ITERATIONS:]),
        "peak_mib": (peak_bytes(device) - before) / 2**20,
        "parameters": sum(parameter.numel() for parameter in trainer.network.parameters()),
    }


def random_batch(trainer: object, options: argparse.Namespace) -> dict:
    """A batch in the form of nnU-Net's loader: images, and targets at every supervised resolution."""
    samples, size = options.batch, list(options.patch)
    if getattr(trainer, "trains_on_stacks", False):  # about the same number of slices per batch
        samples, size = trainer.batch_size, [trainer.slices_in_stack, *size]
    scales = trainer._get_deep_supervision_scales()
    shapes = [[round(length * factor) for length, factor in zip(size, scale, strict=True)] for scale in scales]
    return {
        "data": torch.randn((samples, 1, *size)),
        "target": [nested_balls(shape).expand(samples, 1, *shape).clone() for shape in shapes],
    }


def nested_balls(shape: Sequence[int]) -> torch.Tensor:
    """Labels 0 to 3 by the distance to the centre, 3 innermost."""
    axes = torch.meshgrid(*(torch.linspace(-1, 1, length) for length in shape), indexing="ij")
    distance = torch.stack(axes).square().sum(dim=0).sqrt()
    return sum((distance < radius).to(torch.int16) for radius in (0.8, 0.5, 0.25))


def with_extra_targets(trainer: object, batch: dict) -> dict:
    """The batch with what nnU-Net's loader would compute from each target for loss terms."""
    functions = trainer.loss_with_terms.extras_of_target.values() if hasattr(trainer, "loss_with_terms") else ()
    extras = [torch.stack([function(target) for target in batch["target"][0]]) for function in functions]
    return {**batch, "target": [*batch["target"], *extras]}


def peak_bytes(device: torch.device) -> int:
    """The peak memory of this process so far, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT_BYTES


def measure_in_new_process(arguments: list[str], trainer_name: str) -> dict[str, float]:
    """Runs `measure` in a new process, so that its memory does not include that of other measurements."""
    with tempfile.TemporaryDirectory() as folder:
        preprocessed = Path(folder) / "Dataset990_Random"
        for configuration in ("2d", "3d_fullres"):
            (preprocessed / f"nnUNetPlans_{configuration}").mkdir(parents=True)
            (
                preprocessed / f"nnUNetPlans_{configuration}" / "case.b2nd"
            ).touch()  # nnU-Net infers the file format from it
        done = subprocess.run(
            [sys.executable, __file__, *arguments, "--measure", trainer_name],
            env=os.environ | {"nnUNet_preprocessed": folder, "nnUNet_results": folder},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise RuntimeError(f"{trainer_name} failed: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Runs the measurements, prints a table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainers", nargs="+", default=["nnUNetTrainerDSD", "nnUNetTrainerDSD_FullResolution"])
    parser.add_argument("--patch", nargs="+", type=int, default=[40, 56, 40])
    parser.add_argument("--features", nargs="+", type=int, default=[32, 64, 128, 256])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("-o", type=Path, default=Path("training.json"))
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options, options.measure)))
        return
    names = [PLAIN, *options.trainers]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.repeats):
        for name in names:
            runs[name].append(measure_in_new_process(sys.argv[1:], name))
    table = {name: summary(runs[name], runs[PLAIN]) for name in names}
    print(f"{'trainer':28}{'s/iteration':>12}{'ratio':>7}{'peak MiB':>10}{'ratio':>7}{'parameters':>12}{'added':>9}")
    for name, row in table.items():
        print(
            f"{name:28}{row['seconds']:12.3f}{row['time_ratio']:7.3f}{row['peak_mib']:10.0f}"
            f"{row['memory_ratio']:7.3f}{row['parameters']:12.0f}{row['added_share']:9.3%}"
        )
    options.o.write_text(json.dumps({"options": vars(options) | {"o": str(options.o)}, "table": table}, indent=2))


def summary(runs: list[dict[str, float]], plain_runs: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the runs, and median ratios to the run of plain nnU-Net in the same round."""

    def ratio(key: str) -> float:
        return median(run[key] / plain[key] for run, plain in zip(runs, plain_runs, strict=True))

    medians = {key: median(run[key] for run in runs) for key in runs[0]}
    return medians | {
        "time_ratio": ratio("seconds"),
        "memory_ratio": ratio("peak_mib"),
        "added_share": ratio("parameters") - 1,
    }


if __name__ == "__main__":
    main()
