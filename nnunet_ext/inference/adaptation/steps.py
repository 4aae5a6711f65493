"""The steps of an adaptation: lower the entropy near the foreground on a few tiles (TENT, arXiv 2006.10726)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from nnunet_ext.inference.adaptation.foreground import entropy_of
from nnunet_ext.inference.adaptation.guard import Look, jump, look_at, together
from nnunet_ext.inference.sliding_window import TiledImage
from nnunet_ext.options import AdaptOptions


@dataclass(frozen=True)
class Patch:
    """A tile to adapt to.

    Attributes:
        image: (channels, *patch).
        near: bool (*patch), the voxels near the foreground, at least one.
    """

    image: torch.Tensor
    near: torch.Tensor


def patches_of(tiled: TiledImage, near: torch.Tensor, most: int, device: torch.device) -> list[Patch]:
    """Tiles that hold voxels near the foreground, spread evenly over all that do.

    Args:
        tiled: the image.
        near: bool (*spatial), without the padding.
        most: the largest number of tiles.
        device: where the network runs.
    """
    padded = torch.zeros(tiled.image.shape[1:], dtype=torch.bool, device=near.device)
    padded[tiled.crop] = near
    holding = [tile for tile in tiled.tiles if padded[tile].any()]
    evenly = torch.linspace(0, len(holding) - 1, min(most, len(holding))).round().int().tolist()
    regions = [((slice(None), *holding[number]), holding[number]) for number in evenly]
    # a clone may take part in autograd even if the image was made in inference mode
    return [Patch(tiled.image[region].clone().to(device), padded[tile].to(device)) for region, tile in regions]


def adapt(
    network: nn.Module,
    parameters: Sequence[nn.Parameter],
    patches: Sequence[Patch],
    options: AdaptOptions,
    *,
    regions: bool,
) -> str | None:
    """Changes the parameters in place by steps of Adam on the mean entropy of the voxels near the foreground.

    All steps run on the same patches, one patch at a time, in single precision and with deterministic kernels.

    Args:
        network: maps (1, channels, *patch) to logits (1, C, *patch).
        parameters: what changes.
        patches: at least one.
        options: number and size of the steps; limits of the guard.
        regions: whether the outputs are overlapping regions with one sigmoid each.

    Returns:
        None, or what jumped; the steps then end early.
    """
    optimizer = torch.optim.Adam(parameters, lr=options.learning_rate, foreach=False)
    first: Look | None = None
    for _ in range(options.steps):
        optimizer.zero_grad()
        now = together(learn_from(network, patches, regions=regions))
        first = first or now
        jumped = jump(first, now, options)
        if jumped is not None:
            return jumped
        optimizer.step()
    return None


def learn_from(network: nn.Module, patches: Sequence[Patch], *, regions: bool) -> list[Look]:
    """Adds the gradient of the mean entropy over all patches' voxels near the foreground; looks at each patch."""
    voxels = sum(int(patch.near.sum()) for patch in patches)
    cudnn = torch.backends.cudnn
    looks = []
    with (
        torch.enable_grad(),
        cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        for patch in patches:
            logits = network(patch.image[None])[0]
            loss = (entropy_of(logits, regions=regions) * patch.near).sum() / voxels
            loss.backward()
            looks.append(look_at(logits.detach(), patch.near, regions=regions))
    return looks
