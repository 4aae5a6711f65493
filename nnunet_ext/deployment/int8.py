"""An OpenVINO graph whose convolutions compute in int8, and what that costs in Dice on held-out cases."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from torch import nn

from nnunet_ext.deployment.formats import openvino_graph
from nnunet_ext.deployment.stand_alone import Network, predict_file
from nnunet_ext.evaluation.overlap_counts import joint_histogram, overlap_counts
from nnunet_ext.inference.runtimes.openvino_graph import openvino_package
from nnunet_ext.labels import regions_of
from nnunet_ext.machine.extras import imported

# What a norm is made of: its sums stay in single precision.
NOT_QUANTISED = ("ReduceSum", "Multiply", "Subtract", "Divide", "Sqrt", "Power", "Add")


@dataclass(frozen=True)
class LabelledCase:
    """A training case: its name, the files of its channels and its label map."""

    name: str
    images: tuple[Path, ...]
    label: Path


@dataclass(frozen=True)
class Int8Cases:
    """The cases of one fold.

    Attributes:
        calibration: training cases of the fold, whose patches set the ranges of the layers.
        held_out: validation cases of the fold, on which the Dice is compared.
    """

    calibration: Sequence[LabelledCase]
    held_out: Sequence[LabelledCase]


@dataclass(frozen=True)
class Int8Loss:
    """Mean Dice over held-out cases and structures, without flips, in fp32 and in int8."""

    cases: int
    dice_fp32: float
    dice_int8: float


def nncf_package() -> ModuleType:
    """NNCF.

    Raises:
        ExtraMissingError: if it is not installed.
    """
    openvino_package()  # before NNCF, so that neither reports to its vendor
    return imported("nncf", extra="int8", needed_by="--int8", otherwise="leave it out")


def write_int8(network: nn.Module, patches: torch.Tensor, file: Path) -> None:
    """Writes a quantised OpenVINO graph.

    Args:
        network: in fp32 and evaluation mode; its norms are replaced in place.
        patches: (N, channels, *patch) of training cases, which set the ranges of the layers.
        file: ends in .xml.

    Raises:
        ExtraMissingError: if NNCF is not installed.
    """
    openvino, nncf = openvino_package(), nncf_package()
    nncf.set_log_level(logging.ERROR)  # else it lists every layer that stays as it is
    quantised = nncf.quantize(
        openvino_graph(network, patches[:1]),
        nncf.Dataset([patch[None].numpy() for patch in patches]),
        subset_size=len(patches),
        ignored_scope=nncf.IgnoredScope(types=list(NOT_QUANTISED), validate=False),
    )
    openvino.save_model(quantised, str(file), compress_to_fp16=False)


def int8_loss(
    single: Network, quantised: Network, cases: Sequence[LabelledCase], facts: Mapping[str, Any], folder: Path
) -> Int8Loss:
    """Predicts held-out cases with both networks, as the stand-alone program does without flips.

    Args:
        single: the network in fp32.
        quantised: the network in int8.
        cases: the held-out cases, at least one.
        facts: the content of `model.json`.
        folder: for segmentations, which are deleted.
    """
    model = {**facts, "flip_axes": []}
    dice: list[tuple[float, float]] = []
    for case in cases:
        pair = [
            dice_of(predicted(network, case, model, folder), case.label, facts) for network in (single, quantised)
        ]
        dice.append((pair[0], pair[1]))
    fp32, int8 = np.nanmean(np.array(dice), axis=0)
    return Int8Loss(len(cases), float(fp32), float(int8))


def predicted(network: Network, case: LabelledCase, model: dict[str, Any], folder: Path) -> np.ndarray:
    """The label map (z, y, x) of a case."""
    file = folder / "segmentation.nii.gz"
    predict_file([str(image) for image in case.images], str(file), model, [network])
    labels: np.ndarray = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    file.unlink()
    return labels


def dice_of(prediction: np.ndarray, label_file: Path, facts: Mapping[str, Any]) -> float:
    """Mean Dice over the structures that are in the truth or in the prediction; NaN if there is none."""
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(label_file)))
    histogram = joint_histogram(truth, prediction)
    ignored = facts["labels"].get("ignore")
    counts = [overlap_counts(histogram, region, ignore_label=ignored) for region in regions_of(facts).values()]
    found = [each.dice for each in counts if not np.isnan(each.dice)]
    return float(np.mean(found)) if found else float("nan")
