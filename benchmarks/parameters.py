"""Prints parameters and operations of each trainer's network for a size of plans.

    python benchmarks/parameters.py [--trainers nnUNetTrainer nnUNetTrainerVNet] [--patch 128 128 128]
        [--features 32 64 128 256 320 320] [--channels 1] [--classes 4]

Two numbers for --patch make plans of a 2D configuration. All strides but the first are 2. For the plans of a dataset,
use `nnunet_ext trainers --cost`.
"""

from __future__ import annotations

import argparse

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from random_model import random_plans

from nnunet_ext.architectures.cost import network_cost
from nnunet_ext.trainers.names import trainer_class

TRAINERS = ("nnUNetTrainer", *(f"nnUNetTrainer{part}" for part in (
    "LCOVNet", "SegResNet", "VNet", "SwinUNETR", "UNETR", "DeepLab"
)))  # fmt: skip


def main() -> None:
    """Prints a line for each trainer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainers", nargs="+", default=TRAINERS)
    parser.add_argument("--patch", nargs="+", type=int, default=[128, 128, 128])
    parser.add_argument("--features", nargs="+", type=int, default=[32, 64, 128, 256, 320, 320])
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--classes", type=int, default=4)
    options = parser.parse_args()
    plans = PlansManager(random_plans(tuple(options.features), tuple(options.patch)))
    [configuration] = plans.available_configurations
    for trainer in options.trainers:
        network = trainer_class(trainer).build_network_architecture(
            plans, plans.get_configuration(configuration), options.channels, options.classes, False
        )
        cost = network_cost(network, options.channels, options.patch)
        print(f"{trainer:24}{cost.parameters:>12,}{cost.operations / 1e9:>12,.1f} x 10^9")


if __name__ == "__main__":
    main()
