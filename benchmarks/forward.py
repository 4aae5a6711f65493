"""Times a forward pass on the CPU in every layout and library, and how near it is to the processor's speed.

    python benchmarks/forward.py [--scenes hippocampus acdc] [--repeats 6] [-o forward.json]

Runs the same network in nnU-Net's layout and, as `nnunet_ext predict` does, with channels last and in OpenVINO, in
single precision and in bfloat16, alternately, with the batch size of `nnunet_ext predict` and with single patches,
and takes the best of the repeats. "10^9 per second" are the operations of the convolutions by that time, beside those
of a product of two 2048 x 2048 matrices in single precision: the machine's speed at the time. OpenVINO is left out
where it is not installed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from inference import SCENES, Scene
from random_model import write_folds
from torch.utils.flop_counter import FlopCounterMode

from nnunet_ext.inference.runtimes.batch_size import batch_size_for
from nnunet_ext.inference.runtimes.openvino_runtime import OpenVinoRuntime
from nnunet_ext.inference.runtimes.precision import BFLOAT16_WEIGHTS, SINGLE
from nnunet_ext.inference.runtimes.runtime import Runtime
from nnunet_ext.inference.runtimes.torch_runtime import TorchRuntime
from nnunet_ext.machine.allocator import keep_freed_memory
from nnunet_ext.models.members import MemberRule
from nnunet_ext.models.model import build_network, load_model

CPU = torch.device("cpu")
MATRIX = 2048
MATRICES, PLAIN = "matrices", "nnU-Net's layout"
Run = Callable[[torch.Tensor], torch.Tensor]


def main() -> None:
    """Runs the measurements, prints a Markdown table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("-o", type=Path, default=Path("forward.json"))
    options = parser.parse_args()
    keep_freed_memory()  # as `nnunet_ext predict` does
    results = []
    print("| | batch | | s | as fast as nnU-Net's layout | 10^9 per second | of that of matrices |")
    print("|---|---:|---|" + 4 * "---:|")
    for name in options.scenes:
        scene = SCENES[name]
        for batch in (batch_size_for(scene.patch, CPU).patches, 1):
            with tempfile.TemporaryDirectory() as folder:  # weights are read from it again and again
                found = measure(scene, batch, options.repeats, Path(folder) / "model")
            results.append({"scene": name, "batch": batch, **found})
            for way, seconds in found["seconds"].items():
                rate = batch * found["operations"] / seconds
                cells = [f"{seconds:.3f}", f"{found['seconds'][PLAIN] / seconds:.2f}", f"{rate / 1e9:.0f}"]
                share = f"{rate / found['matrix_operations_per_s']:.2f}"
                print(f"| {name} | {batch} | {way} | {' | '.join([*cells, share])} |", flush=True)
    options.o.write_text(json.dumps(results, indent=2))


@torch.inference_mode()
def measure(scene: Scene, batch: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Shortest time of each way in s, operations of one patch, and operations per second of matrix products."""
    write_folds(folder, 1, features=scene.features, patch=scene.patch, classes=scene.classes)
    ways = ways_of(folder)
    patches, matrix = torch.randn(batch, 1, *scene.patch), torch.randn(MATRIX, MATRIX)
    calls: dict[str, Callable[[], object]] = {way: partial(run, patches) for way, run in ways.items()}
    calls[MATRICES] = lambda: matrix @ matrix
    shortest_s = dict.fromkeys(calls, float("inf"))
    for _ in range(repeats):
        for way, call in calls.items():
            start = time.perf_counter()
            call()
            shortest_s[way] = min(shortest_s[way], time.perf_counter() - start)
    with FlopCounterMode(display=False) as counter:
        ways[PLAIN](patches[:1])
    return {
        "matrix_operations_per_s": 2 * MATRIX**3 / shortest_s.pop(MATRICES),
        "operations": counter.get_total_flops(),
        "seconds": shortest_s,
    }


def ways_of(folder: Path) -> dict[str, Run]:
    """The ways to run a model's network: in torch as nnU-Net builds it and as this package does, and in OpenVINO."""
    models = {
        kind: load_model(folder, None, MemberRule.parse("final"), device=CPU, weights_dtype=kind)
        for kind in (torch.float32, torch.bfloat16)
    }
    ours = models[torch.float32]
    member = ours.members[0]
    plain = build_network(member.trainer_name, ours.plans, ours.configuration, ours.dataset_json, ours.labels).eval()
    plain.load_state_dict(ours.network.state_dict())
    runtimes: dict[str, Runtime] = {
        "channels last": TorchRuntime(ours, CPU, SINGLE),
        "torch, bf16": TorchRuntime(models[torch.bfloat16], CPU, BFLOAT16_WEIGHTS),
    }
    if find_spec("openvino") is not None:
        runtimes["OpenVINO"] = OpenVinoRuntime(ours, CPU, SINGLE)
        runtimes["OpenVINO, bf16"] = OpenVinoRuntime(ours, CPU, BFLOAT16_WEIGHTS)
    for runtime in runtimes.values():
        runtime.load(member)
    return {PLAIN: plain, **{way: runtime.run for way, runtime in runtimes.items()}}


if __name__ == "__main__":
    main()
