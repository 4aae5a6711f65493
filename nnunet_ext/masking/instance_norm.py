"""Instance normalisation over the visible voxels only, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor


def visible_instance_norm(
    features: Tensor, visible: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalises every channel of every sample by mean and variance of its visible voxels; hidden ones become 0.

    With m = 1 for visible voxels: mu = sum(m x) / sum(m), var = sum(m (x - mu)^2) / sum(m),
    y = m (weight (x - mu) / sqrt(var + eps) + bias). Equal to gathering the visible voxels and normalising them, but
    samples may have different numbers of them, and shapes do not depend on the mask. Computed in float32.

    Args:
        features: (B, C, *spatial), any floating-point type.
        visible: (B, 1, *spatial), float32, 1 for visible voxels, else 0; at least two visible ones per sample.
        weight: (C,), None for 1.
        bias: (C,), None for 0.
        eps: added to the variance.

    Returns:
        (B, C, *spatial) in the type of `features`.
    """
    with torch.autocast(features.device.type, enabled=False):
        values = features.float().flatten(2)  # (B, C, voxels)
        mask = visible.flatten(2)  # (B, 1, voxels)
        count = mask.sum(dim=2, keepdim=True)
        mean = values @ mask.transpose(1, 2) / count  # (B, C, 1), in one pass over the features
        centred = (values - mean) * mask
        scale = (centred.square().sum(dim=2, keepdim=True) / count + eps).rsqrt()
        if weight is not None:
            scale = scale * weight.float()[:, None]
        normalised = centred * scale
        if bias is not None:
            normalised = normalised + bias.float()[:, None] * mask
        return normalised.reshape(features.shape).to(features.dtype)
