"""A network as an OpenVINO graph whose weights are inputs, traced once and cached for later runs.

The graph holds no weights, so one graph serves every member, and the cache holds nothing of what was trained.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from nnunet_ext.error_text import first_line
from nnunet_ext.files.atomic import atomic_path
from nnunet_ext.inference.runtimes.runtime import CannotRunError
from nnunet_ext.machine.cache_folder import cache_folder
from nnunet_ext.machine.extras import imported

TELEMETRY = "openvino_telemetry"
UNUSED = {"num_batches_tracked"}  # of batch norms: counts in training only
Tensors = dict[str, torch.Tensor]

logger = logging.getLogger(__name__)


def openvino_package(needed_by: str = "--runtime openvino", otherwise: str = "leave out --runtime") -> ModuleType:
    """The package `openvino`, imported without its telemetry.

    On import OpenVINO reports to an analytics service of its vendor unless the user opted out. It does without where
    its package for that cannot be imported, which this function makes so: images of patients are predicted here.

    Args:
        needed_by: see `imported`.
        otherwise: see `imported`.

    Raises:
        ExtraMissingError: if it is not installed.
    """
    sys.modules.setdefault(TELEMETRY, None)  # type: ignore[arg-type]  # None makes its import fail
    return imported("openvino", extra="openvino", needed_by=needed_by, otherwise=otherwise)


def weights_of(network: nn.Module) -> Tensors:
    """The parameters and buffers of a network by name: the inputs of its graph after the patches.

    A module that is listed under two names counts once. A tensor that two modules share counts for each of them, so
    that none of them keeps the weights of another member.
    """
    return {
        f"{path}.{name}".lstrip("."): tensor
        for path, module in network.named_modules()
        for name, tensor in (module._parameters | module._buffers).items()
        if tensor is not None and name not in UNUSED
    }


def graph_of(network: nn.Module, patch: torch.Tensor) -> Any:
    """The graph of a network, from the cache or traced.

    Args:
        network: the network, in evaluation mode and single precision, on the CPU.
        patch: an image patch (channels, *patch); its shape is that of all patches.

    Returns:
        An `openvino.Model` with the inputs (B, channels, *patch) for any B, then `weights_of(network)`.

    Raises:
        CannotRunError: if torch or OpenVINO cannot trace the network.
    """
    file = cache_folder("openvino") / f"{graph_key(network, patch.shape)}.xml"
    if file.is_file() and file.with_suffix(".bin").is_file():
        with suppress(RuntimeError):  # damaged: it is traced again
            return openvino_package().Core().read_model(file)
    logger.warning("Tracing the network for OpenVINO, once for this network and patch size.")
    graph = traced(network, patch)
    try:
        save(graph, file)
    except OSError as error:  # such as a home folder that cannot be written
        logger.warning("The traced graph is not kept for the next run: %s.", error)
    return graph


def graph_key(network: nn.Module, shape: Sequence[int]) -> str:
    """A hash of all that the graph depends on: layers, names and shapes of weights, patch, and versions."""
    versions = [torch.__version__, openvino_package().__version__, platform.python_version(), code_version()]
    weights = [(name, tuple(tensor.shape)) for name, tensor in weights_of(network).items()]
    kind = type(network)
    described = (versions, f"{kind.__module__}.{kind.__qualname__}", repr(network), weights, tuple(shape))
    return hashlib.sha256(repr(described).encode()).hexdigest()


def code_version() -> str:
    """A hash of this package's networks, whose code may change what is traced under the same description."""
    from nnunet_ext import architectures

    files = sorted(Path(architectures.__path__[0]).glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def save(graph: Any, file: Path) -> None:
    """Writes a graph as `file`, with its constants in a `.bin` beside it.

    The `.bin` is renamed into place first: `graph_of` takes a graph only if both files are there.

    Raises:
        OSError: if the folder cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    constants = file.with_suffix(".bin")
    with atomic_path(file) as temporary, atomic_path(constants) as temporary_constants:
        openvino_package().serialize(graph, str(temporary), str(temporary_constants))


def traced(network: nn.Module, patch: torch.Tensor) -> Any:
    """Traces a network with its weights as inputs, see `graph_of`."""
    openvino = openvino_package()
    front = openvino.frontend
    refused = (RuntimeError, front.OpConversionFailure, front.NotImplementedFailure, front.GeneralFailure)
    weights = weights_of(network)
    with torch.no_grad(), restored(network), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about Python values; the graph is compared with torch
        try:
            inputs = (patch[None], *(tensor.detach() for tensor in weights.values()))
            graph = openvino.convert_model(WithWeights(network, list(weights)), example_input=inputs)
        except refused as error:
            raise CannotRunError(f"it cannot be traced ({first_line(error)})") from error
    if len(graph.inputs) != 1 + len(weights):
        raise CannotRunError("it does not use all of its weights")
    shapes = [[-1, *patch.shape], *(list(tensor.shape) for tensor in weights.values())]
    graph.reshape(dict(zip(graph.inputs, shapes, strict=True)))
    return graph


class WithWeights(nn.Module):
    """A network as a function of patches and weights; `torch.func.functional_call` cannot be traced.

    Args:
        network: the network, which is left pointing at the traced weights.
        names: names of the weights in the order of the arguments.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self._hidden = [network]  # in a list, so that its weights are not this module's own
        self._names = names

    def forward(self, patches: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        """Logits (B, C, *patch) of patches (B, channels, *patch)."""
        network = self._hidden[0]
        for name, tensor in zip(self._names, weights, strict=True):
            put(network, name, tensor)
        logits: torch.Tensor = network(patches)
        return logits


@contextmanager
def restored(network: nn.Module) -> Iterator[None]:
    """Gives a network its own tensors back at the end."""
    own = weights_of(network)
    try:
        yield
    finally:
        for name, tensor in own.items():
            put(network, name, tensor)


def put(network: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Makes a tensor the parameter or buffer of this name; unlike `setattr` it takes any tensor as a parameter."""
    path, _, leaf = name.rpartition(".")
    module = network.get_submodule(path)
    tensors: dict[str, Any] = module._parameters if leaf in module._parameters else module._buffers
    tensors[leaf] = tensor
