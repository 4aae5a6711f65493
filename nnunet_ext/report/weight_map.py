"""The weights that a Cyclical training sampled, as points of a plane: their first two principal components."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nnunet_ext.files.checkpoints import CheckpointError, load_checkpoint
from nnunet_ext.samples import Sample, read_manifest

FEWEST = 3  # two points are always on a line
CHUNK = 1 << 16  # weights of each sample at a time

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightMap:
    """Samples in order of training.

    Attributes:
        points: (samples, 2), in the units of the weights; distances are at most those of the weights.
        explained: share of the variance along each of the two axes, in [0, 1].
        cycles: of each sample, from 0.
        epochs: of each sample, from 0.
        available: how many samples the training has, of which these were read.
    """

    points: np.ndarray
    explained: tuple[float, float]
    cycles: tuple[int, ...]
    epochs: tuple[int, ...]
    available: int


def map_samples(fold_folder: Path, most: int) -> WeightMap | None:
    """Maps the samples that `samples.json` lists and that still exist.

    Args:
        fold_folder: of a Cyclical training.
        most: samples that are read; of more, as many are taken at even steps.

    Returns:
        None for fewer than three samples, if all are the same, or if one cannot be read, which is logged.
    """
    available = [sample for sample in read_manifest(fold_folder) if (fold_folder / sample.file).is_file()]
    samples = evenly_spaced(available, most)
    if len(samples) < FEWEST:
        return None
    try:
        gram = centred_gram([_weights(fold_folder / sample.file) for sample in samples])
    except (CheckpointError, KeyError, ValueError) as error:
        logger.warning("The report leaves out the map of the weights in %s: %s", fold_folder, error)
        return None
    points, explained = principal_plane(gram)
    if not np.isfinite(explained).all():
        return None
    return WeightMap(
        points,
        explained,
        tuple(sample.cycle for sample in samples),
        tuple(sample.epoch for sample in samples),
        len(available),
    )


def evenly_spaced(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most so many samples, the first and the last among them; none if `most` is below 1."""
    if len(samples) <= most:
        return list(samples)
    return [samples[index] for index in np.linspace(0, len(samples) - 1, max(most, 0)).round().astype(int)]


def centred_gram(weights: Sequence[Mapping[str, Tensor]]) -> np.ndarray:
    """(S, S) float64: inner products of the samples' weights after their mean is taken away.

    The samples are read a piece at a time, so that mapped files of any number and size fit into memory. A tensor
    that nnU-Net lists under several keys counts once.

    Args:
        weights: state dicts of one network, at least one.

    Raises:
        ValueError: if they have not the same tensors.
    """
    first = weights[0]
    total = np.zeros((len(weights), len(weights)))
    for name in unique_tensors(first):
        if any(name not in sample or sample[name].shape != first[name].shape for sample in weights):
            raise ValueError(f"Samples of one training must have the same tensors; {name} differs or is missing.")
        flat = [sample[name].reshape(-1) for sample in weights]
        for start in range(0, flat[0].numel(), CHUNK):
            piece = torch.stack([tensor[start : start + CHUNK].double() for tensor in flat]).numpy()
            piece -= piece.mean(axis=0)
            total += piece @ piece.T
    return total


def unique_tensors(weights: Mapping[str, Tensor]) -> list[str]:
    """One key for each floating-point tensor in memory."""
    keys: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.numel():
            keys.setdefault((tensor.data_ptr(), tuple(tensor.shape), tensor.stride()), name)
    return list(keys.values())


def principal_plane(gram: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Principal components from a centred Gram matrix (PCA in its dual form).

    The sign of a component is free; here the point that is furthest from 0 along it is positive.

    Args:
        gram: (S, S), S at least 2.

    Returns:
        points: (S, 2).
        explained: share of the variance along each of them, in [0, 1]; NaN if all points are the same.
    """
    values, vectors = np.linalg.eigh(gram)  # ascending
    values, vectors = np.clip(values[::-1], 0, None), vectors[:, ::-1]
    points = vectors[:, :2] * np.sqrt(values[:2])
    furthest = np.abs(points).argmax(axis=0)
    points = points * np.where(points[furthest, [0, 1]] < 0, -1, 1)
    total = float(values.sum())
    first, second = (float(value) / total if total else float("nan") for value in values[:2])
    return points, (first, second)


def _weights(file: Path) -> dict[str, Tensor]:
    return load_checkpoint(file, mmap=True)["network_weights"]
