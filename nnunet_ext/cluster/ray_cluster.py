"""Connects to a Ray cluster, and divides it among workers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nnunet_ext.cluster.hand_out import ClusterError
from nnunet_ext.options import CORES_PER_WORKER, ClusterOptions

FOR_A_STARTED_CLUSTER = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it reports to nobody
    "RAY_worker_niceness": "0",  # its workers are what the user waits for; Ray's default is 15
}


@dataclass(frozen=True)
class Shares:
    """How a cluster is divided.

    Attributes:
        device: where the networks of a worker run.
        workers: how many there can be.
        cores: CPU cores of each.
    """

    device: str
    workers: int
    cores: int

    @property
    def words(self) -> str:
        """For the terminal: "at most 4 workers, each with a GPU and 8 cores"."""
        each = f"{'a GPU and ' if self.device == 'cuda' else ''}{self.cores} {'core' if self.cores == 1 else 'cores'}"
        return f"at most {self.workers} {'worker' if self.workers == 1 else 'workers'}, each with {each}"

    @property
    def resources(self) -> dict[str, float]:
        """What Ray reserves for a worker."""
        return {"num_cpus": self.cores, "num_gpus": 1 if self.device == "cuda" else 0}


@contextmanager
def connected(ray: Any, options: ClusterOptions) -> Iterator[None]:
    """Uses a cluster, and leaves it at the end; one that was started for it ends.

    Args:
        ray: the module.
        options: which cluster.

    Raises:
        ClusterError: if there is none at the address.
    """
    if ray.is_initialized():  # a notebook's own
        yield
        return
    for variable, value in FOR_A_STARTED_CLUSTER.items():
        os.environ.setdefault(variable, value)
    try:
        ray.init(address=options.address, logging_level=logging.ERROR, include_dashboard=False)
    except ConnectionError as error:
        raise ClusterError(
            f"--cluster ray:ADDRESS needs a Ray cluster at the address; found none at {options.address}: {error}. "
            f"Start one with ray start --head, or leave out the address to start one on this machine."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def shares_of(machines: list[dict[str, float]], device: str | None, cores: int | None) -> Shares:
    """Divides machines among workers: one for each GPU, or for each so many CPU cores.

    Args:
        machines: of each machine, its number of "CPU" and "GPU".
        device: where the networks run; None takes GPUs if there are any.
        cores: of each worker; None takes 4, or all of a smaller machine, and on GPUs a GPU's share of the cores.

    Raises:
        ClusterError: if no machine is large enough, or the device is one that Ray does not share.
    """
    gpus = [int(machine.get("GPU", 0)) for machine in machines]
    cpus = [int(machine.get("CPU", 0)) for machine in machines]
    device = device or ("cuda" if any(gpus) else "cpu")
    if device not in ("cuda", "cpu"):
        raise ClusterError(f"Workers run on cuda or cpu; found -device {device}. Leave it out, or use -device cpu.")
    if device == "cuda":
        each = cores or max(1, min((cpu // gpu for cpu, gpu in zip(cpus, gpus, strict=True) if gpu), default=1))
        workers = sum(min(gpu, cpu // each) for cpu, gpu in zip(cpus, gpus, strict=True))
    else:
        each = cores or max(1, min(CORES_PER_WORKER, max(cpus, default=1)))
        workers = sum(cpu // each for cpu in cpus)
    if workers == 0:
        found = ", ".join(f"{cpu} and {gpu}" for cpu, gpu in zip(cpus, gpus, strict=True))
        raise ClusterError(
            f"A worker needs {each} CPU cores{' and a GPU' if device == 'cuda' else ''} of one machine; found CPUs "
            f"and GPUs {found or '0 and 0'}. Add a machine, or ask for less with --cluster-cpus or -device cpu."
        )
    return Shares(device, workers, each)


def machines_of(ray: Any) -> list[dict[str, float]]:
    """The resources of each machine of the connected cluster."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
