"""The choice of the runtime for a model."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec

import torch

from nnunet_ext.inference.runtimes.fused_runtime import FusedRuntime
from nnunet_ext.inference.runtimes.openvino_runtime import OpenVinoRuntime
from nnunet_ext.inference.runtimes.precision import Arithmetic, fastest, finished
from nnunet_ext.inference.runtimes.probe import noise
from nnunet_ext.inference.runtimes.runtime import CannotRunError, Runtime
from nnunet_ext.inference.runtimes.torch_runtime import CompiledTorchRuntime, TorchRuntime
from nnunet_ext.models.model import Model
from nnunet_ext.options import RuntimeName

COMPILE_VARIABLE = "nnUNet_compile"
TRIAL_REPEATS = 2
TRIAL_PATCHES = {"cpu": 1, "cuda": 8}  # a GPU runs many at once
BESIDE_TORCH = {"cpu": "openvino", "cuda": "fused"}
ChooseRuntime = Callable[[Model, torch.device, Arithmetic], Runtime]

logger = logging.getLogger(__name__)

RUNTIMES: dict[str, ChooseRuntime] = {
    "torch": TorchRuntime,
    "torch-compiled": CompiledTorchRuntime,
    "fused": FusedRuntime,
    "openvino": OpenVinoRuntime,
}


def runtime_for(model: Model, device: torch.device, arithmetic: Arithmetic) -> Runtime:
    """The torch runtime; compiled if the environment variable `nnUNet_compile` says so, as in stock nnU-Net."""
    compiled = os.environ.get(COMPILE_VARIABLE, "").lower() in ("true", "1", "t")
    return RUNTIMES["torch-compiled" if compiled else "torch"](model, device, arithmetic)


def openvino_where_possible(model: Model, device: torch.device, arithmetic: Arithmetic) -> Runtime:
    """The OpenVINO runtime, or with a warning that says why the torch runtime.

    Raises:
        ExtraMissingError: if OpenVINO is not installed.
    """
    try:
        return RUNTIMES["openvino"](model, device, arithmetic)
    except CannotRunError as reason:
        logger.warning("%s runs in torch instead of OpenVINO: %s.", model.folder.name, reason)
        return runtime_for(model, device, arithmetic)


def faster_runtime(
    model: Model, device: torch.device, arithmetic: Arithmetic, beside_torch: Mapping[str, str] = BESIDE_TORCH
) -> Runtime:
    """The faster of torch and another runtime in a short trial here; torch if the other cannot run the model.

    Args:
        model, device, arithmetic: see `TorchRuntime`.
        beside_torch: type of device to the other runtime's name.
    """
    torch_runtime = runtime_for(model, device, arithmetic)
    other = beside_torch.get(device.type)
    if other is None or (other == "openvino" and find_spec("openvino") is None):
        return torch_runtime
    try:
        candidates = {other: RUNTIMES[other](model, device, arithmetic), "torch": torch_runtime}
    except CannotRunError as reason:
        logger.info("%s runs in torch: %s cannot be used, %s.", model.folder.name, other, reason)
        return torch_runtime
    patches = noise(model, TRIAL_PATCHES[device.type]).to(device)
    seconds = {name: trial_seconds(runtime, model, patches) for name, runtime in candidates.items()}
    fast = min(seconds, key=lambda name: seconds[name])
    logger.info("%s runs in %s: %s s for %d patches.", model.folder.name, fast, seconds, len(patches))
    return candidates[fast]


def trial_seconds(runtime: Runtime, model: Model, patches: torch.Tensor) -> float:
    """Time of the network on these patches, (B, channels, *patch), with the weights of the first member."""
    runtime.load(model.members[0])
    return fastest(partial(finished, runtime.run, patches), repeats=TRIAL_REPEATS)


CHOICES: dict[RuntimeName, ChooseRuntime] = {
    "torch": runtime_for,
    "openvino": openvino_where_possible,
    "auto": faster_runtime,
}
