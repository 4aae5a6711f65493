"""Skeleton recall: the share of the truth's centre lines that is found (Kirchhoff et al., ECCV 2024).

The paper is arXiv 2404.03010.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_dilation, distance_transform_edt, find_objects, generate_binary_structure, label
from skimage.morphology import skeletonize
from torch import Tensor

from nnunet_ext.losses.targets import OutputForm, mean_of_present

SKELETON = "skeleton"


@dataclass(frozen=True)
class SkeletonRecallTerm:
    """Minus the mean over structures of sum(s p) / sum(s), s the truth's tubed skeleton.

    It is -1 for a perfect prediction, and for any that covers the skeleton: it needs a loss beside it that counts
    false positives. A class that a patch lacks has neither value nor gradient.

    Attributes:
        form: of the target.
    """

    form: OutputForm

    def __call__(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """See `LossTerm`; `extras[SKELETON]` is s, (B, F, *spatial), any type of number."""
        found = self.form.foreground(logits, target)
        skeleton = extras[SKELETON].to(found.p.dtype)
        length = skeleton.flatten(start_dim=2).sum(dim=2)  # (B, F)
        covered = (skeleton * found.p).flatten(start_dim=2).sum(dim=2)
        return -mean_of_present(covered / length.clamp_min(1), length > 0)


def tubed_skeleton(mask: np.ndarray) -> np.ndarray:
    """The centre line of a mask, one voxel thick, dilated once by the full neighbourhood, within the mask.

    Args:
        mask: boolean, (H, W) or (D, H, W). With one slice, (1, H, W), the skeleton is that of the slice.

    Returns:
        Boolean; empty if the mask is. Each connected object has some of it.
    """
    if not mask.any():
        return np.zeros_like(mask)
    neighbours = generate_binary_structure(mask.ndim, mask.ndim)
    line = skeletonize(mask).astype(bool)
    line |= cores_without(line, label(mask, neighbours)[0])
    return binary_dilation(line, neighbours) & mask


def cores_without(line: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """The deepest voxels of objects that have nothing of the line.

    scikit-image's thinning in three dimensions leaves nothing of many compact objects, nor of straight tubes that are
    an even number of voxels wide.

    Args:
        line: boolean.
        objects: of its shape, int, 1, 2, ... in the objects, 0 elsewhere.

    Returns:
        Boolean, of the same shape.
    """
    cores = np.zeros_like(line)
    found = set(np.unique(objects[line]))
    for number, box in enumerate(find_objects(objects), start=1):
        if number not in found:
            inside = objects[box] == number
            # with a frame of zeros: outside of the box is outside of the object
            depth = distance_transform_edt(np.pad(inside, 1))[(slice(1, -1),) * inside.ndim]
            cores[box] |= depth == depth.max()
    return cores


@dataclass(frozen=True)
class SkeletonOfTarget:
    """What a loader computes for skeleton recall: `tubed_skeleton` of every foreground class or region.

    Attributes:
        form: of the target.
        outputs: of the network.
    """

    form: OutputForm
    outputs: int

    def __call__(self, target: Tensor) -> Tensor:
        """(F, *spatial), uint8, of one patch's target (channels, *spatial)."""
        masks = self.form.masks(target, self.outputs).numpy()
        return torch.from_numpy(np.stack([tubed_skeleton(mask) for mask in masks]).astype(np.uint8))
