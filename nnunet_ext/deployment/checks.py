"""Compares an exported network with torch, on patches of noise and of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from torch import nn

from nnunet_ext.deployment.half_precision import HalfPrecision, in_half_precision
from nnunet_ext.deployment.refusal import DeploymentError
from nnunet_ext.deployment.stand_alone import all_channels
from nnunet_ext.inference.sliding_window import tile_image
from nnunet_ext.models.model import Model
from nnunet_ext.options import NetworkPrecision
from nnunet_ext.prediction_folder.cases import cases_from

LARGEST_DIFFERENCE = 1e-4  # of probabilities in single precision
NOISE_PATCHES = 2
CASES = 2
PATCHES_PER_CASE = 2


@dataclass(frozen=True)
class NetworkCheck:
    """How far an exported network is from torch in fp32; probabilities, over all patches.

    Attributes:
        patches: number of patches, of noise and of images.
        largest_difference: of the exported network, at most.
        half_largest_difference: with every layer's output in half precision, at most.
        half_other_labels: share of the voxels that get another label there.
        half_overflow: the layer that overflows there; None if none does.
        half_norms_in_single: norms that a half-precision engine must compute in single precision.
    """

    patches: int
    largest_difference: float
    half_largest_difference: float
    half_other_labels: float
    half_overflow: str | None
    half_norms_in_single: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """As `model.json` holds it; null where half precision overflows."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


@torch.no_grad()
def check_network(
    network: nn.Module,
    exported: Callable[[np.ndarray], np.ndarray],
    patches: torch.Tensor,
    *,
    regions: bool,
    precision: NetworkPrecision,
) -> NetworkCheck:
    """Compares an exported network with torch.

    Args:
        network: in fp32 and evaluation mode.
        exported: runs the exported network, (1, channels, *patch) to logits (1, C, *patch).
        patches: (N, channels, *patch).
        regions: whether the outputs are regions.
        precision: of the exported network.

    Raises:
        DeploymentError: if probabilities of an fp32 network differ by more than 1e-4, or a layer of an fp16 network
            overflows.
    """
    half = [in_half_precision(network, patch[None]) for patch in patches]
    overflow = next((each for each in half if each.overflow is not None), None)
    if precision == "fp16" and overflow is not None:
        raise overflow_error(overflow)
    nonlinearity = torch.sigmoid if regions else (lambda logits: torch.softmax(logits, 1))
    expected = nonlinearity(torch.cat([network(patch[None]) for patch in patches]))
    found = nonlinearity(torch.cat([torch.from_numpy(np.array(exported(patch[None].numpy()))) for patch in patches]))
    in_half = nonlinearity(torch.cat([each.logits for each in half]))
    difference = float((found - expected).abs().max())
    if precision == "fp32" and not difference <= LARGEST_DIFFERENCE:  # NaN is not
        raise DeploymentError(
            f"An exported network must give torch's probabilities to {LARGEST_DIFFERENCE}; they differ by "
            f"{difference:.1e}. Take another --format."
        )
    if not torch.isfinite(found).all():
        raise DeploymentError(
            "An exported network must give numbers; this one gives NaN or infinity. Take --precision fp32."
        )
    labels = [values > 0.5 if regions else values.argmax(1) for values in (in_half, expected)]
    return NetworkCheck(
        patches=len(patches),
        largest_difference=difference,
        half_largest_difference=float((in_half - expected).abs().max()),
        half_other_labels=float((labels[0] != labels[1]).float().mean()),
        half_overflow=None if overflow is None else overflow.overflow,
        half_norms_in_single=tuple(sorted({name for each in half for name in each.norms_in_single})),
    )


def overflow_error(half: HalfPrecision) -> DeploymentError:
    """The refusal of a network that half precision cannot hold."""
    return DeploymentError(
        f"Half precision holds values up to 65504; {half.overflow} has {half.largest:.3g}, which becomes infinite, "
        f"and the segmentation empty. Take --precision fp32, or an engine that computes this layer in fp32 or bf16."
    )


def noise_patches(model: Model) -> torch.Tensor:
    """Patches (N, channels, *patch) of noise with the mean and deviation of normalised images; always the same."""
    channels = determine_num_input_channels(model.plans, model.configuration, model.dataset_json)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(NOISE_PATCHES, channels, *model.configuration.patch_size, generator=generator)


def image_patches(model: Model, images: Path) -> torch.Tensor:
    """Patches (N, channels, *patch) of the first images of a folder, those with the most contrast.

    Raises:
        FileNotFoundError: if the folder holds no image.
    """
    cases = cases_from(images, model.dataset_json["file_ending"])[:CASES]
    return torch.cat([patches_of(model, model.preprocess(case)[0]) for case in cases])


def patches_of(model: Model, image: torch.Tensor, count: int = PATCHES_PER_CASE) -> torch.Tensor:
    """The patches (N, channels, *patch) of a preprocessed image (channels, *spatial) with the most contrast."""
    tiled = tile_image(image, model.configuration.patch_size)
    patches: Sequence[torch.Tensor] = [tiled.image[all_channels(tile)] for tile in tiled.tiles]
    return torch.stack(sorted(patches, key=lambda patch: -float(patch.std()))[:count])
