"""Blurs stacks within their slices only, as nnU-Net's 2D training does.

nnU-Net blurs 3D patches along the stack as well. Slices are several mm apart, so that mixes anatomy that the labels
keep apart; and a stack of less than four slices is too thin for the kernel, which ends the training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform, blur_dimension
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import OneOfTransform, RandomTransform


class InPlaneBlur(GaussianBlurTransform):
    """Another blur, but not along the first spatial axis; all slices of a channel alike.

    Args:
        blur: nnU-Net's, whose settings and random numbers it has.
    """

    def __init__(self, blur: GaussianBlurTransform) -> None:
        super().__init__(blur.blur_sigma, blur.synchronize_channels, blur.synchronize_axes, blur.p_per_channel)

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        """Blurs (channels, S, *in_plane) in place."""
        for position, channel in enumerate(np.flatnonzero(params["apply_to_channel"])):
            sigmas = params["sigmas"] if self.synchronize_channels else params["sigmas"][position]
            slices = img[channel]  # (S, *in_plane)
            for axis, sigma in enumerate(sigmas[1:]):
                slices = blur_dimension(slices, sigma, axis)
            img[channel] = slices
        return img


def with_in_plane_blur(transforms: ComposeTransforms) -> ComposeTransforms:
    """The same transforms with `InPlaneBlur` in place of nnU-Net's blur."""
    return ComposeTransforms([_in_plane(step) for step in transforms.transforms])


def _in_plane(step: BasicTransform) -> BasicTransform:
    if isinstance(step, RandomTransform):
        return RandomTransform(_in_plane(step.transform), step.apply_probability)
    if isinstance(step, OneOfTransform):  # DA5 draws its blur or another filter
        return OneOfTransform([_in_plane(each) for each in step.list_of_transforms])
    return InPlaneBlur(step) if isinstance(step, GaussianBlurTransform) else step
