"""nnU-Net's encoders on the visible voxels of an image only.

A sparse encoder has no modules of its own: it runs the layers of a plain encoder with a mask. So a trained encoder is
the plain one, and layers that nnU-Net lists under two names stay one layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.residual import BasicBlockD, BottleneckD, StackedResidualBlocks
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU, StackedConvBlocks
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from nnunet_ext.masking.blocks import visible_voxels
from nnunet_ext.masking.instance_norm import visible_instance_norm

ENCODERS = (PlainConvEncoder, ResidualEncoder)
CONTAINERS = (nn.Sequential, StackedConvBlocks, StackedResidualBlocks)
RESIDUAL_BLOCKS = (BasicBlockD, BottleneckD)
POOLINGS = (nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool2d, nn.MaxPool3d)
SUPPORTED = (*ENCODERS, *CONTAINERS, *RESIDUAL_BLOCKS, *POOLINGS, ConvDropoutNormReLU, _ConvNd, _DropoutNd)


class VisibleVoxels:
    """The mask of a batch at every resolution that an encoder asks for.

    Args:
        visible_blocks: (B, 1, *grid), 1 for visible blocks and 0 for hidden ones.
    """

    def __init__(self, visible_blocks: Tensor) -> None:
        self.visible_blocks = visible_blocks
        self._by_shape: dict[tuple[int, ...], Tensor] = {}

    def like(self, features: Tensor) -> Tensor:
        """(B, 1, *spatial), float32, for features (B, C, *spatial)."""
        shape = tuple(features.shape[2:])
        if shape not in self._by_shape:
            self._by_shape[shape] = visible_voxels(self.visible_blocks, shape)
        return self._by_shape[shape]

    def keep(self, features: Tensor) -> Tensor:
        """The features with zeros in place of hidden voxels."""
        return features * self.like(features).to(features.dtype)


def visible_features(encoder: Any, image: Tensor, visible: VisibleVoxels) -> list[Tensor]:
    """The features of every level, zero at hidden voxels; hidden voxels of the image have no influence on them.

    Args:
        encoder: nnU-Net's encoder, for which `require_sparse` found nothing.
        image: (B, channels, *spatial); its hidden voxels are set to 0.
        visible: the mask.

    Returns:
        E_0 ... E_{n-1}, each (B, C, *spatial), level 0 first.
    """
    features = visible.keep(image)
    if getattr(encoder, "stem", None) is not None:
        features = run_sparse(encoder.stem, features, visible)
    levels = []
    for stage in encoder.stages:
        features = run_sparse(stage, features, visible)
        levels.append(features)
    return levels


def run_sparse(module: nn.Module, features: Tensor, visible: VisibleVoxels) -> Tensor:
    """One layer or block of an encoder; features are zero at hidden voxels before and after it."""
    if isinstance(module, CONTAINERS):
        for child in children_in_order(module):
            features = run_sparse(child, features, visible)
        return features
    if isinstance(module, ConvDropoutNormReLU):
        return conv_block(module, features, visible)
    if isinstance(module, RESIDUAL_BLOCKS):
        return residual_block(module, features, visible)
    return visible.keep(module(features))


def children_in_order(module: nn.Module) -> Sequence[nn.Module]:
    """What a container applies one after the other."""
    if isinstance(module, StackedConvBlocks):
        return list(module.convs)
    return list(module.blocks if isinstance(module, StackedResidualBlocks) else module)  # type: ignore[arg-type]


def conv_block(block: ConvDropoutNormReLU, features: Tensor, visible: VisibleVoxels) -> Tensor:
    """Convolution, norm over visible voxels, activation. The norm sets hidden voxels back to zero."""
    hidden_again = False
    for layer in block.all_modules:
        if isinstance(layer, _InstanceNorm):
            mask = visible.like(features)
            features = visible_instance_norm(features, mask, layer.weight, layer.bias, layer.eps)
            hidden_again = True
        else:
            features = layer(features)
    return features if hidden_again else visible.keep(features)


def residual_block(block: Any, features: Tensor, visible: VisibleVoxels) -> Tensor:
    """nnU-Net's residual block."""
    residual = run_sparse(block.skip, features, visible) if isinstance(block.skip, nn.Module) else features
    last = "3" if isinstance(block, BottleneckD) else "2"
    for number in range(1, int(last) + 1):
        features = conv_block(getattr(block, f"conv{number}"), features, visible)
    return getattr(block, f"nonlin{last}")(features + residual)


def require_sparse(encoder: nn.Module) -> None:
    """Refuses an encoder that cannot run on visible voxels only.

    Raises:
        ValueError: if it is not one of nnU-Net's, or has a layer that mixes hidden and visible voxels (batch norm,
            squeeze and excitation) or an activation that does not map 0 to 0.
    """
    if not isinstance(encoder, ENCODERS):
        raise ValueError(
            f"A sparse encoder needs nnU-Net's PlainConvEncoder or ResidualEncoder; found {type(encoder).__name__}. "
            f"Use plans with PlainConvUNet or ResidualEncoderUNet, or the trainer MAE."
        )
    for name, module in encoder.named_modules():
        if not is_supported(module):
            raise ValueError(
                f"A sparse encoder needs instance norm and activations that map 0 to 0; found "
                f"{type(module).__name__} in encoder.{name}. Change the plans, or use the trainer MAE."
            )


def is_supported(module: nn.Module) -> bool:
    """Whether hidden voxels stay zero and unseen in a layer."""
    if isinstance(module, RESIDUAL_BLOCKS):
        return not module.apply_se and not module.apply_stochastic_depth
    if isinstance(module, _InstanceNorm):
        return not module.track_running_stats
    if isinstance(module, SUPPORTED):
        return True
    return not list(module.parameters()) and is_elementwise_with_zero(module)


def is_elementwise_with_zero(module: nn.Module) -> bool:
    """Whether a layer without parameters is an activation that maps 0 to 0 whatever stands beside it."""
    line = torch.tensor([[[0.0, 1.0, -2.0, 3.0]]])
    try:
        mapped = module(line.clone())
    except (RuntimeError, ValueError):  # a layer for other shapes, no activation
        return False
    alone = torch.cat([module(line[..., [position]].clone()) for position in range(4)], dim=-1)
    return mapped.shape == line.shape and bool(mapped[0, 0, 0] == 0) and torch.equal(mapped, alone)
