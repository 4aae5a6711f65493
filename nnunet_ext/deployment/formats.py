"""Writes a network in the format of another runtime; its input is `image`, its output `logits`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnunet_ext.architectures.channels_last import with_channels_last
from nnunet_ext.deployment.refusal import DeploymentError
from nnunet_ext.error_text import first_line
from nnunet_ext.inference.runtimes.openvino_graph import openvino_package
from nnunet_ext.machine.extras import imported
from nnunet_ext.options import NetworkFormat, NetworkPrecision

ONNX_OPSET = 18  # the first with the resizing and padding that torch's exporter writes
FIRST_LINE = 200  # characters of a long message of an exporter

Write = Callable[[nn.Module, torch.Tensor, Path, NetworkPrecision], None]


@dataclass(frozen=True)
class FileFormat:
    """A format that networks are written in.

    Attributes:
        ending: ending of the file.
        write: writes a network in fp32, in evaluation mode, to a file, given a patch (1, channels, *patch).
        packages: what writing and checking needs to import.
    """

    ending: str
    write: Write
    packages: tuple[str, ...] = ()


def write_onnx(network: nn.Module, patch: torch.Tensor, file: Path, precision: NetworkPrecision) -> None:
    """Writes an ONNX file with the weights inside, for any number of patches a batch."""
    if precision == "fp16":
        network, patch = network.half(), patch.half()
    with quiet():
        torch.onnx.export(
            network,
            (patch,),
            str(file),
            dynamo=True,
            verbose=False,
            opset_version=ONNX_OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
        )


def write_openvino(network: nn.Module, patch: torch.Tensor, file: Path, precision: NetworkPrecision) -> None:
    """Writes an OpenVINO graph, for any number of patches a batch, with its weights in a .bin file beside it."""
    openvino_package().save_model(openvino_graph(network, patch), str(file), compress_to_fp16=precision == "fp16")


def openvino_graph(network: nn.Module, patch: torch.Tensor) -> Any:
    """The OpenVINO graph of a network, whose norms are replaced in place by those that OpenVINO computes well."""
    with quiet():
        graph = openvino_package().convert_model(with_channels_last(network), example_input=patch)
    graph.reshape([-1, *patch.shape[1:]])
    graph.inputs[0].set_names({"image"})
    graph.outputs[0].set_names({"logits"})
    return graph


def write_torchscript(network: nn.Module, patch: torch.Tensor, file: Path, precision: NetworkPrecision) -> None:
    """Writes a traced module."""
    with quiet():
        traced = torch.jit.trace(network, patch, check_trace=False)
        (traced.half() if precision == "fp16" else traced).save(str(file))


FORMATS: dict[NetworkFormat, FileFormat] = {
    "onnx": FileFormat(".onnx", write_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "openvino": FileFormat(".xml", write_openvino, ("openvino",)),
    "torchscript": FileFormat(".pt", write_torchscript),
}


def require_packages(name: NetworkFormat) -> None:
    """Imports what a format needs.

    Raises:
        ExtraMissingError: if something is not installed.
    """
    words = {"needed_by": f"--format {name}", "otherwise": "take another format"}
    for package in FORMATS[name].packages:
        if package == "openvino":
            openvino_package(**words)
        else:
            imported(package, extra=name, **words)


@torch.no_grad()
def write_network(
    name: NetworkFormat, network: nn.Module, patch: torch.Tensor, file: Path, precision: NetworkPrecision
) -> None:
    """Writes a network to a file.

    Args:
        name: the format.
        network: in fp32 and evaluation mode; may be converted in place.
        patch: (1, channels, *patch).
        file: with the ending of the format.
        precision: of the written weights.

    Raises:
        DeploymentError: if the format cannot express the network.
    """
    try:
        FORMATS[name].write(network, patch, file, precision)
    except (RuntimeError, TypeError, NotImplementedError) as error:  # RuntimeError: that of all three exporters
        reason = first_line(error)[:FIRST_LINE]
        raise DeploymentError(
            f"The network {type(network).__name__} cannot be written as {name}: {reason}. Try another --format."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporters' warnings about Python values away: what they write is compared with torch."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(before)
