"""The flags that hand cases to a cluster."""

from __future__ import annotations

import argparse

from nnunet_ext.options import ClusterOptions


def add_cluster_flags(parser: argparse._ActionsContainer) -> None:
    """Adds `--cluster` and what it needs."""
    cluster = parser.add_argument_group("cluster (needs nnunet-ext[ray])")
    cluster.add_argument(
        "--cluster",
        metavar="ray[:ADDRESS]",
        help="hand the cases to a Ray cluster, a worker for each GPU or for each share of the CPU cores: the one at "
        "ADDRESS, in RAY_ADDRESS, or on this machine, else one that is started for the run. Every machine needs this "
        "environment, and sees images, models and output folder under the same paths",
    )
    cluster.add_argument(
        "--cluster-cpus",
        type=int,
        metavar="N",
        help="CPU cores, and threads, per worker (default: 4, or all of a smaller machine; with GPUs, a GPU's share)",
    )


def chosen_cluster(arguments: argparse.Namespace) -> ClusterOptions | None:
    """The value of the flags; None if the cases are predicted in this process.

    Raises:
        ValueError: if it is not a Ray cluster, or there are cores without one.
    """
    if arguments.cluster is not None:
        return ClusterOptions.parse(arguments.cluster, arguments.cluster_cpus)
    if arguments.cluster_cpus is not None:
        raise ValueError("--cluster-cpus is for workers of a cluster; found no --cluster. Add it, or leave it out.")
    return None
