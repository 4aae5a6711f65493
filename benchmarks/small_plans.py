"""Plans with a network that a CPU trains in minutes, beside a dataset's own.

python benchmarks/small_plans.py PREPROCESSED/Dataset004_Hippocampus/nnUNetPlans.json 3d_fullres nnUNetPlansStudy
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SMALL: dict[int, dict[str, Any]] = {  # of a configuration with that many axes
    2: {"patch_size": [128, 128], "batch_size": 6, "features": [8, 16, 32, 64, 64]},
    3: {"patch_size": [40, 56, 40], "batch_size": 2, "features": [16, 32, 64, 96]},
}


def main() -> None:
    """Writes the plans into the folder of those given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", type=Path, help="file that nnU-Net planned")
    parser.add_argument("configuration")
    parser.add_argument("name", help="of the new plans")
    parser.add_argument("--patch-size", type=int, nargs="+")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--features", type=int, nargs="+", help="channels of each stage")
    options = parser.parse_args()
    chosen = {"patch_size": options.patch_size, "batch_size": options.batch_size, "features": options.features}
    write_small(options.plans, options.name, {options.configuration: {name: v for name, v in chosen.items() if v}})


def write_small(file: Path, name: str, networks: Mapping[str, Mapping[str, Any]]) -> Path:
    """Writes plans beside others, with small networks.

    Args:
        file: that nnU-Net planned.
        name: of the new plans; that of the file itself replaces it.
        networks: configuration to what is chosen for it, see `shrink`.
    """
    plans = json.loads(file.read_text(encoding="utf-8"))
    for configuration, chosen in networks.items():
        shrink(plans["configurations"][configuration], chosen)
    small = file.with_name(f"{name}.json")
    small.write_text(json.dumps(plans | {"plans_name": name}), encoding="utf-8")
    return small


def shrink(planned: dict[str, Any], chosen: Mapping[str, Any]) -> None:
    """Replaces patch, batch and network of a configuration by those of `SMALL`, or by what is chosen instead."""
    axes = len(planned["patch_size"])
    small = SMALL[axes] | dict(chosen)
    stages = len(small["features"])
    planned |= {"patch_size": small["patch_size"], "batch_size": small["batch_size"]}
    arguments = planned["architecture"]["arch_kwargs"]
    arguments |= {
        "n_stages": stages,
        "features_per_stage": small["features"],
        "kernel_sizes": arguments["kernel_sizes"][:stages],
        "strides": arguments["strides"][:stages],
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"][: stages - 1],
    }
    for blocks in {"n_conv_per_stage", "n_blocks_per_stage"} & set(arguments):  # of a plain or a residual encoder
        arguments[blocks] = arguments[blocks][:stages]


if __name__ == "__main__":
    main()
