"""Cases whose intensities say where a voxel comes from, and plans to load stacks of their slices."""

from __future__ import annotations

import json
from copy import deepcopy

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

SIDE = 40  # of a slice, in voxels; patches have 32
CENTRE = SIDE // 2
SLICE_SPACING_MM = 8.0


def numbered_case(case, slices, channels=1):
    """Images (channels, D, H, W) whose intensity is 1000 * channel + 100 * case + slice, and labels slice mod 3."""
    values = 100.0 * case + np.arange(slices)
    image = np.stack([values + 1000 * channel for channel in range(channels)])
    image = np.broadcast_to(image[..., None, None], (channels, slices, SIDE, SIDE))
    labels = np.broadcast_to((np.arange(slices) % 3)[None, :, None, None], (1, slices, SIDE, SIDE))
    return image.astype(np.float32), labels.astype(np.int8)


def save_case(folder, name, image, labels):
    """In nnU-Net's format; the only place of a label that the loader knows is the centre."""
    depth = image.shape[1]
    centre = np.array([[0, depth // 2, CENTRE, CENTRE]])
    properties = {"class_locations": {1: centre, 2: centre, (1, 2): centre, (2,): centre}}
    chunks = {"chunks": image.shape, "blocks": (1, *image.shape[1:]), "chunks_seg": labels.shape}
    nnUNetDatasetBlosc2.save_case(image, labels, properties, str(folder / name), blocks_seg=labels.shape, **chunks)


def architecture_3d(architecture):
    """The 2D architecture of the fixture's plans with one axis more."""
    text = json.dumps(architecture).replace("2d", "3d")
    changed = json.loads(text)
    changed["arch_kwargs"].update(strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]], kernel_sizes=[[3, 3, 3]] * 3)
    return changed


def plans_for_stacks(plans, *, median_slices, batch_size, channels):
    """The fixture's 2D plans with what loading needs, and a 3D configuration beside them."""
    changed = deepcopy(plans)
    changed["continue_training"] = False  # the constructor takes it out
    changed["original_median_shape_after_transp"] = [median_slices, SIDE, SIDE]
    changed["original_median_spacing_after_transp"] = [SLICE_SPACING_MM, 1.0, 1.0]
    planar = changed["configurations"]["2d"]
    planar.update(batch_size=batch_size, use_mask_for_norm=[False] * channels)
    volumetric = {
        "data_identifier": planar["data_identifier"],  # the same cases
        "batch_size": 2,
        "patch_size": [8, 32, 32],
        "architecture": architecture_3d(planar["architecture"]),
    }
    changed["configurations"]["3d_fullres"] = {**planar, **volumetric}
    return changed
