"""Shared by the parts that average weights: means of state dicts, BatchNorm statistics, the checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, update_bn

from nnunet_ext.trainers.base import ExtTrainer


def write_averaged_checkpoint(trainer: ExtTrainer, average: AveragedModel, name: str) -> None:
    """Writes averaged weights as a checkpoint for prediction, after refreshing BatchNorm statistics if any exist."""
    if trainer.disable_checkpointing:
        return
    weights = refresh_batch_norm(
        average.module, average.module.state_dict(), training_images(trainer), device=trainer.device
    )
    if trainer.writes_files:
        trainer.save_weights(Path(trainer.output_folder) / name, weights)


def training_images(trainer: ExtTrainer) -> Iterator[torch.Tensor]:
    """The images of the training batches of one epoch, each (B, channels, *spatial)."""
    for _ in range(trainer.num_iterations_per_epoch):
        yield next(trainer.dataloader_train)["data"]


def mean_weights(members: Iterable[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Element-wise mean of state dicts, summed in fp64 and returned as fp32; integer buffers are those of the last.

    Raises:
        ValueError: if there are no members.
    """
    sums: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    count = 0
    for member in members:
        count += 1
        aliases = aliases or shared_names(member)
        for name in set(aliases.values()):
            tensor = member[name]
            if not tensor.is_floating_point():
                sums[name] = tensor.clone()
            elif name in sums:
                sums[name] += tensor
            else:
                sums[name] = tensor.to(torch.float64, copy=True)
    if not count:
        raise ValueError("A mean of weights needs at least one member; found none.")
    means = {name: (total / count).float() if total.is_floating_point() else total for name, total in sums.items()}
    return {name: means[first] for name, first in aliases.items()}


def shared_names(weights: dict[str, torch.Tensor]) -> dict[str, str]:
    """Maps every name to the first name of the same tensor, because nnU-Net lists most tensors under several."""
    first: dict[tuple[int, torch.Size], str] = {}
    return {name: first.setdefault((tensor.data_ptr(), tensor.shape), name) for name, tensor in weights.items()}


def refresh_batch_norm(
    network: nn.Module,
    weights: dict[str, torch.Tensor],
    images: Iterable[torch.Tensor],
    *,
    device: torch.device,
) -> dict[str, torch.Tensor]:
    """Recomputes the running statistics of BatchNorm layers for averaged weights.

    Averaged weights produce activations that the running statistics of none of their members describe. nnU-Net's
    InstanceNorm has no running statistics; a BatchNorm variant (`nnUNetTrainerBN`) does.

    Args:
        network: the architecture; it is copied and not modified.
        weights: state dict of the averaged weights.
        images: batches (B, channels, *spatial) to measure the statistics on.
        device: where to run the network.

    Returns:
        The state dict with the new statistics; `weights` itself if no layer has running statistics.
    """
    if not any(isinstance(module, _BatchNorm) and module.track_running_stats for module in network.modules()):
        return weights
    averaged = deepcopy(network).to(device)
    averaged.load_state_dict(weights)
    update_bn(images, averaged, device=device)
    return averaged.state_dict()
