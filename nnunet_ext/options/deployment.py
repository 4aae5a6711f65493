"""Options of `export --format`: a model for a machine without nnU-Net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from nnunet_ext.options.choices import require_choice

NetworkFormat = Literal["onnx", "openvino", "torchscript"]
NetworkPrecision = Literal["fp32", "fp16"]

NETWORK_FORMATS: tuple[NetworkFormat, ...] = get_args(NetworkFormat)
NETWORK_PRECISIONS: tuple[NetworkPrecision, ...] = get_args(NetworkPrecision)


@dataclass(frozen=True)
class DeployOptions:
    """What `nnunet_ext export --format` writes.

    Attributes:
        results: folder for the exported models, laid out like `nnUNet_results`; created if missing.
        format: "onnx", "openvino" or "torchscript".
        precision: "fp32", or "fp16": weights in half precision, and layers as well where the runtime computes in it.
        folds: folds whose checkpoints become networks; None takes all folds with the checkpoint.
        checkpoint: file name in each fold, or a pattern of several.
        images: folder of images that the networks are checked on besides noise; None takes `imagesTr` of the dataset
            in `nnUNet_raw` if it is there.
        trust_checkpoints: whether checkpoints may contain more than plain data, which can run code.
        int8: whether the convolutions of an OpenVINO network compute in int8, with ranges from training cases.

    Raises:
        ValueError: if format or precision is unknown, or int8 is asked for in another format than OpenVINO or with
            fp16.
    """

    results: Path
    format: NetworkFormat
    precision: NetworkPrecision = "fp32"
    folds: Sequence[int | str] | None = None
    checkpoint: str = "checkpoint_final.pth"
    images: Path | None = None
    trust_checkpoints: bool = False
    int8: bool = False

    def __post_init__(self) -> None:
        require_choice("format", self.format, NETWORK_FORMATS)
        require_choice("precision", self.precision, NETWORK_PRECISIONS)
        if self.int8 and (self.format != "openvino" or self.precision != "fp32"):
            raise ValueError(
                f"int8 networks are written for OpenVINO, from fp32; found format {self.format} and precision "
                f"{self.precision}. Take --format openvino without --precision, or leave out --int8."
            )
