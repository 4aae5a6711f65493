"""Times a forward pass on the CPU in channels-last layout against nnU-Net's layout, and the speed of the processor.

    python benchmarks/forward.py [--scenes hippocampus acdc] [--repeats 6] [-o forward.json]

Runs the same network in both layouts alternately, with the batch size of `nnunet_ext predict` and with single
patches, and takes the best of the repeats. Each row also has the number of operations of the convolutions in one
patch, and the operations per second of a product of two 2048 x 2048 matrices: the machine's speed at the time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from inference import SCENES, Scene
from random_model import write_folds
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnunet_ext.inference.runtimes.batch_size import batch_size_for
from nnunet_ext.machine.allocator import keep_freed_memory
from nnunet_ext.models.members import MemberRule
from nnunet_ext.models.model import build_network, load_model

CPU = torch.device("cpu")
MATRIX = 2048


def main() -> None:
    """Runs the measurements, prints a Markdown table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("-o", type=Path, default=Path("forward.json"))
    options = parser.parse_args()
    keep_freed_memory()  # as `nnunet_ext predict` does
    results = []
    print("| | batch | nnU-Net's layout, s | channels last, s | ratio | 10^9 per patch | 10^9 per second, matrices |")
    print("|---|" + 6 * "---:|")
    for name in options.scenes:
        scene = SCENES[name]
        for batch in (batch_size_for(scene.patch, CPU).patches, 1):
            found = measure(scene, batch, options.repeats)
            results.append({"scene": name, "batch": batch, **found})
            plain, ours = found["plain_s"], found["channels_last_s"]
            per_patch, per_second = found["operations"] / 1e9, found["matrix_operations_per_s"] / 1e9
            cells = [f"{plain:.3f}", f"{ours:.3f}", f"{plain / ours:.2f}", f"{per_patch:.1f}", f"{per_second:.0f}"]
            print(f"| {name} | {batch} | {' | '.join(cells)} |", flush=True)
    options.o.write_text(json.dumps(results, indent=2))


@torch.inference_mode()
def measure(scene: Scene, batch: int, repeats: int) -> dict[str, float]:
    """Shortest time of both layouts in s, operations per patch, and operations per second of matrix products."""
    plain, ours = networks(scene)
    patches, matrix = torch.randn(batch, 1, *scene.patch), torch.randn(MATRIX, MATRIX)
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(patches),
        "ours": lambda: ours(patches),
        "matrices": lambda: matrix @ matrix,
    }
    shortest_s = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            shortest_s[way] = min(shortest_s[way], time.perf_counter() - start)
    with FlopCounterMode(display=False) as counter:
        plain(patches[:1])
    return {
        "plain_s": shortest_s["plain"],
        "channels_last_s": shortest_s["ours"],
        "operations": counter.get_total_flops(),
        "matrix_operations_per_s": 2 * MATRIX**3 / shortest_s["matrices"],
    }


def networks(scene: Scene) -> tuple[nn.Module, nn.Module]:
    """The network as nnU-Net builds it and as `nnunet_ext predict` runs it, with the same weights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        write_folds(folder, 1, features=scene.features, patch=scene.patch, classes=scene.classes)
        model = load_model(folder, None, MemberRule.parse("final"), device=CPU)
        trainer = model.members[0].trainer_name
        plain = build_network(trainer, model.plans, model.configuration, model.dataset_json, model.labels).eval()
        plain.load_state_dict(model.network.state_dict())
    return plain, model.network


if __name__ == "__main__":
    main()
