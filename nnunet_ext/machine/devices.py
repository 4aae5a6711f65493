"""Where networks can run on this machine, and with how many threads."""

from __future__ import annotations

import os

import torch

from nnunet_ext.machine.allocator import keep_freed_memory


def fastest_device() -> torch.device:
    """A CUDA device if torch finds one, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def usable_device(device: torch.device) -> torch.device:
    """The device itself.

    Raises:
        ValueError: if it is a CUDA device or Apple's GPU, and torch finds none.
    """
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("-device cuda needs a CUDA device, and torch finds none. Use -device cpu.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("-device mps needs Apple's GPU, and torch finds none. Use -device cpu.")
    return device


def words_for(device: torch.device) -> str:
    """Where networks run, for a person: "on the CPU: PyTorch finds no GPU"."""
    if device.type == "cuda":
        return f"on the GPU: {torch.cuda.get_device_name(device)}"
    if device.type == "mps":
        return "on Apple's GPU (mps)"
    return "on the CPU: PyTorch finds no GPU" if fastest_device().type == "cpu" else "on the CPU"


def prepare_process_for(device: torch.device, cores: int | None = None) -> None:
    """Sets the threads: all cores, or `cores`, on a CPU, one for a GPU as stock does. A CPU keeps freed memory."""
    torch.set_num_threads((cores or usable_cores()) if device.type == "cpu" else 1)
    if device.type == "cpu":
        keep_freed_memory()


def usable_cores() -> int:
    """Number of cores that this process may run on; a batch system may allow fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
