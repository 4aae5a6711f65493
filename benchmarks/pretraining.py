"""Compares pre-trainings: time per training iteration and peak memory, in one run; MAE and S3D by default.

    python benchmarks/pretraining.py [--trainers nnUNetTrainerMAE nnUNetTrainerS3D] [--patch 64] [--stages 5]
        [--batch 1] [--iterations 4] [--device cpu] [-o pretraining.json]

The network is ResEnc-L of `nnunet_ext pretrain`, with --stages of its 6 levels; images are noise. The trainers take
turns after every iteration, so that both meet the same load of the machine; ratios are medians over the pairs, to the
first trainer. Seconds are those of this process on a CPU, wall time on CUDA. Memory is that of a process per trainer:
the growth of the largest resident set (on CUDA, of the allocator's peak) in two iterations.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from training import peak_bytes

from nnunet_ext.options.pretraining import FixedPlans
from nnunet_ext.unlabelled.plans import CONFIGURATION, fixed_plans

WARM_UP_ITERATIONS = 1


def make_trainer(name: str, options: argparse.Namespace) -> object:
    """A trainer with the fixed plans, cut to the given levels, ready for training steps."""
    from nnunet_ext.trainers.names import trainer_class

    plans = fixed_plans(
        "Dataset990_Random", FixedPlans(), channels=1, batch_size=options.batch, file_ending=".nii.gz"
    )
    configuration = plans["configurations"][CONFIGURATION]
    configuration["patch_size"] = [options.patch] * 3
    kwargs = configuration["architecture"]["arch_kwargs"]
    kwargs["n_stages"] = options.stages
    for key in ("features_per_stage", "kernel_sizes", "strides", "n_blocks_per_stage"):
        kwargs[key] = kwargs[key][: options.stages]
    kwargs["n_conv_per_stage_decoder"] = kwargs["n_conv_per_stage_decoder"][: options.stages - 1]
    dataset_json = {"channel_names": {"0": "MR"}, "labels": {"background": 0}, "file_ending": ".nii.gz"}
    torch.manual_seed(0)
    trainer = trainer_class(name)(
        plans | {"continue_training": False}, CONFIGURATION, 0, dataset_json, device=torch.device(options.device)
    )
    trainer.initialize()
    trainer.network.train()
    return trainer


def seconds_of_step(trainer: object, image: torch.Tensor) -> float:
    """One training iteration."""
    clock = time.process_time if trainer.device.type == "cpu" else time.perf_counter
    start = clock()
    trainer.train_step({"data": image})
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def random_image(trainer: object, patch: int) -> torch.Tensor:
    """A batch of noise, with as many images as the trainer's loaders give."""
    return torch.randn((trainer.batch_size, 1, *[patch] * 3))


def times(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every iteration of every trainer, in turns."""
    trainers = {name: make_trainer(name, options) for name in options.trainers}
    images = {name: random_image(trainer, options.patch) for name, trainer in trainers.items()}
    found: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(WARM_UP_ITERATIONS + options.iterations):
        for name, trainer in trainers.items():
            found[name].append(seconds_of_step(trainer, images[name]))
    return {name: seconds[WARM_UP_ITERATIONS:] for name, seconds in found.items()}


def memory_mib(name: str, options: argparse.Namespace) -> float:
    """Growth of the peak memory of this process in two iterations."""
    trainer = make_trainer(name, options)
    image = random_image(trainer, options.patch)
    before = peak_bytes(trainer.device)
    for _ in range(2):
        seconds_of_step(trainer, image)
    return (peak_bytes(trainer.device) - before) / 2**20


def memory_in_new_process(name: str) -> float:
    """`memory_mib` in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--memory-of", name], capture_output=True, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Runs the measurements, prints a table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainers", nargs="+", default=["nnUNetTrainerMAE", "nnUNetTrainerS3D"])
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--stages", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("-o", type=Path, default=Path("pretraining.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"nnUNet_preprocessed": folder, "nnUNet_results": folder}
        cases = Path(folder) / "Dataset990_Random" / f"nnUNetPretrainPlans_{CONFIGURATION}"
        cases.mkdir(parents=True)
        (cases / "case.b2nd").touch()  # nnU-Net infers the file format from it
        if options.memory_of:
            print(memory_mib(options.memory_of, options))
            return
        memory = {name: memory_in_new_process(name) for name in options.trainers}
        seconds = times(options)
    first = options.trainers[0]
    table = {
        name: {
            "seconds": median(seconds[name]),
            "time_ratio": median(a / b for a, b in zip(seconds[name], seconds[first], strict=True)),
            "peak_mib": memory[name],
            "memory_ratio": memory[name] / memory[first],
        }
        for name in options.trainers
    }
    print(f"{'trainer':28}{'s/iteration':>12}{'ratio':>7}{'peak MiB':>10}{'ratio':>7}")
    for name, row in table.items():
        print(
            f"{name:28}{row['seconds']:12.2f}{row['time_ratio']:7.2f}{row['peak_mib']:10.0f}{row['memory_ratio']:7.2f}"
        )
    options.o.write_text(json.dumps({"options": vars(options) | {"o": str(options.o)}, "table": table}, indent=2))


if __name__ == "__main__":
    main()
