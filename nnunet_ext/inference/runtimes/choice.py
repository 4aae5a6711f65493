"""The choice of the runtime for a model."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from nnunet_ext.inference.runtimes.precision import Arithmetic
from nnunet_ext.inference.runtimes.runtime import Runtime
from nnunet_ext.inference.runtimes.torch_runtime import CompiledTorchRuntime, TorchRuntime
from nnunet_ext.models.model import Model

COMPILE_VARIABLE = "nnUNet_compile"
ChooseRuntime = Callable[[Model, torch.device, Arithmetic], Runtime]

RUNTIMES: dict[str, ChooseRuntime] = {
    "torch": TorchRuntime,
    "torch-compiled": CompiledTorchRuntime,
}


def runtime_for(model: Model, device: torch.device, arithmetic: Arithmetic) -> Runtime:
    """The torch runtime; compiled if the environment variable `nnUNet_compile` says so, as in stock nnU-Net."""
    compiled = os.environ.get(COMPILE_VARIABLE, "").lower() in ("true", "1", "t")
    return RUNTIMES["torch-compiled" if compiled else "torch"](model, device, arithmetic)
