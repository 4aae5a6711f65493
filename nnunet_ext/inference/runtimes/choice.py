"""The choice of the runtime for a model."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import torch

from nnunet_ext.inference.runtimes.openvino_graph import UntraceableError
from nnunet_ext.inference.runtimes.openvino_runtime import OpenVinoRuntime, noise
from nnunet_ext.inference.runtimes.precision import Arithmetic, fastest
from nnunet_ext.inference.runtimes.runtime import Runtime
from nnunet_ext.inference.runtimes.torch_runtime import CompiledTorchRuntime, TorchRuntime
from nnunet_ext.models.model import Model
from nnunet_ext.options import RuntimeName

COMPILE_VARIABLE = "nnUNet_compile"
TRIAL_REPEATS = 2
ChooseRuntime = Callable[[Model, torch.device, Arithmetic], Runtime]

logger = logging.getLogger(__name__)

RUNTIMES: dict[str, ChooseRuntime] = {
    "torch": TorchRuntime,
    "torch-compiled": CompiledTorchRuntime,
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
    except UntraceableError as reason:
        logger.warning("%s runs in torch instead of OpenVINO: %s.", model.folder.name, reason)
        return runtime_for(model, device, arithmetic)


def faster_runtime(model: Model, device: torch.device, arithmetic: Arithmetic) -> Runtime:
    """The faster of torch and OpenVINO in a short trial here; torch where OpenVINO is missing or cannot be used."""
    torch_runtime = runtime_for(model, device, arithmetic)
    if device.type != "cpu" or find_spec("openvino") is None:
        return torch_runtime
    try:
        candidates = {"openvino": RUNTIMES["openvino"](model, device, arithmetic), "torch": torch_runtime}
    except UntraceableError as reason:
        logger.info("%s runs in torch instead of OpenVINO: %s.", model.folder.name, reason)
        return torch_runtime
    seconds = {name: seconds_per_patch(runtime, model) for name, runtime in candidates.items()}
    fast = min(seconds, key=lambda name: seconds[name])
    logger.info("%s runs in %s: %s s per patch.", model.folder.name, fast, seconds)
    return candidates[fast]


def seconds_per_patch(runtime: Runtime, model: Model) -> float:
    """Time of the network on one patch of noise, with the weights of the first member."""
    runtime.load(model.members[0])
    return fastest(partial(runtime.run, noise(model, 1)), repeats=TRIAL_REPEATS)


CHOICES: dict[RuntimeName, ChooseRuntime] = {
    "torch": runtime_for,
    "openvino": openvino_where_possible,
    "auto": faster_runtime,
}
