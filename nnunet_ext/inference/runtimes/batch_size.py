"""The number of patches per batch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

VOXELS_PER_BATCH_CPU = 1 << 19  # larger batches are no faster and take more memory
VOXELS_PER_BATCH_GPU = 1 << 23  # four patches of 128 x 128 x 128
SHARE_OF_FREE_MEMORY = 0.7  # the rest is left to the workspaces that the libraries allocate

logger = logging.getLogger(__name__)


@dataclass
class BatchSize:
    """Number of patches per batch, at least 1; halved permanently if a batch does not fit into memory."""

    patches: int

    def halve(self) -> None:
        """Halves the batch size after a batch did not fit into memory."""
        smaller = max(1, self.patches // 2)
        logger.warning("A batch of %d patches does not fit into memory; continuing with %d.", self.patches, smaller)
        self.patches = smaller


def batch_size_for(patch_size: Sequence[int], device: torch.device) -> BatchSize:
    """As many patches as fit into a fixed number of voxels per batch, which depends on the device."""
    voxels = VOXELS_PER_BATCH_CPU if device.type == "cpu" else VOXELS_PER_BATCH_GPU
    return BatchSize(max(1, voxels // math.prod(patch_size)))


def fitting_batch_size(patch_size: Sequence[int], device: torch.device, run_patch: Callable[[], object]) -> BatchSize:
    """`batch_size_for`, but on a GPU no more patches than fit into its free memory.

    Args:
        patch_size: patch size of the configuration.
        device: where the network runs.
        run_patch: runs the network on one patch, so that its memory can be measured.
    """
    most = batch_size_for(patch_size, device)
    if device.type != "cuda":
        return most
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run_patch()
    per_patch = torch.cuda.max_memory_allocated(device) - before
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + unused
    return BatchSize(max(1, min(most.patches, int(SHARE_OF_FREE_MEMORY * free / max(1, per_patch)))))
