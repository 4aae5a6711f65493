"""The choice of the runtime for a model."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Literal

import torch

from nnunet_ext.inference.runtimes.fused_runtime import FusedRuntime
from nnunet_ext.inference.runtimes.openvino_runtime import OpenVinoRuntime
from nnunet_ext.inference.runtimes.precision import Arithmetic, fastest, finished
from nnunet_ext.inference.runtimes.probe import noise
from nnunet_ext.inference.runtimes.recorded_network import RecordedNetwork
from nnunet_ext.inference.runtimes.runtime import CannotRunError, Runtime
from nnunet_ext.inference.runtimes.torch_runtime import CompiledTorchRuntime, TorchRuntime
from nnunet_ext.models.model import Model
from nnunet_ext.options import RuntimeName

COMPILE_VARIABLE = "nnUNet_compile"
TRIAL_REPEATS = 2
TRIAL_PATCHES = {"cpu": 1, "cuda": 8}  # a GPU runs many at once
BESIDE_TORCH = {"cpu": ("openvino",), "cuda": ("fused", "recorded")}  # the first that can run a network
ChooseRuntime = Callable[[Model, torch.device, Arithmetic], Runtime]

logger = logging.getLogger(__name__)

RUNTIMES: dict[str, ChooseRuntime] = {
    "torch": TorchRuntime,
    "torch-compiled": CompiledTorchRuntime,
    "fused": FusedRuntime,
    "recorded": partial(FusedRuntime, compile_network=RecordedNetwork),
    "openvino": OpenVinoRuntime,
}


def runtime_for(model: Model, device: torch.device, arithmetic: Arithmetic) -> Runtime:
    """The torch runtime; compiled if the environment variable `nnUNet_compile` says so, as in stock nnU-Net."""
    return RUNTIMES["torch-compiled" if compilation() == "wanted" else "torch"](model, device, arithmetic)


def compilation() -> Literal["wanted", "unwanted", ""]:
    """What the environment variable `nnUNet_compile` says, in stock's words; empty if it says nothing."""
    said = os.environ.get(COMPILE_VARIABLE, "").lower()
    return "wanted" if said in ("true", "1", "t") else "unwanted" if said in ("false", "0", "f") else ""


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
    model: Model,
    device: torch.device,
    arithmetic: Arithmetic,
    beside_torch: Mapping[str, Sequence[str]] = BESIDE_TORCH,
) -> Runtime:
    """The faster of torch and another runtime in a short trial here; torch if no other can run the model.

    Args:
        model, device, arithmetic: see `TorchRuntime`.
        beside_torch: type of device to the names of other runtimes, of which the first that can run it is tried.
    """
    candidates: dict[str, Runtime] = {"torch": runtime_for(model, device, arithmetic)}
    for other in filter(is_usable, beside_torch.get(device.type, ())):
        try:
            candidates[other] = RUNTIMES[other](model, device, arithmetic)
            break
        except CannotRunError as reason:
            logger.info("%s: %s cannot be used, %s.", model.folder.name, other, reason)
    if len(candidates) == 1:
        return candidates["torch"]
    patches = noise(model, TRIAL_PATCHES[device.type]).to(device)
    seconds = {name: trial_seconds(runtime, model, patches) for name, runtime in candidates.items()}
    fast = min(seconds, key=lambda name: seconds[name])
    logger.info("%s runs in %s: %s s for %d patches.", model.folder.name, fast, seconds, len(patches))
    return candidates[fast]


def is_usable(name: str) -> bool:
    """Whether a runtime is installed, and wanted by the environment variable `nnUNet_compile`."""
    if name == "openvino":
        return find_spec("openvino") is not None
    return name != "fused" or compilation() != "unwanted"


def trial_seconds(runtime: Runtime, model: Model, patches: torch.Tensor) -> float:
    """Time of the network on these patches, (B, channels, *patch), with the weights of the first member."""
    runtime.load(model.members[0])
    return fastest(partial(finished, runtime.run, patches), repeats=TRIAL_REPEATS)


CHOICES: dict[RuntimeName, ChooseRuntime] = {
    "torch": runtime_for,
    "openvino": openvino_where_possible,
    "auto": faster_runtime,
}
