"""The maps of a mixture's memory: how decided each classifier is at a place, and its weight (arXiv 2502.09269)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from nnunet_ext.inference.accumulation.case_frame import CaseFrame
from nnunet_ext.inference.accumulation.maps import as_map
from nnunet_ext.inference.accumulation.slabs import assembled
from nnunet_ext.inference.passes import Pass
from nnunet_ext.models.members import MemberError
from nnunet_ext.models.model import Model
from nnunet_ext.options import MEMORY, MEMORY_MAPS, OutputOptions


def memory_map_names(classifiers: int) -> list[str]:
    """The maps of a mixture: `memory_uncertainty_0`, ..., `memory_weight_0`, ..., one of each per classifier."""
    return [f"{name}_{classifier}" for name in MEMORY_MAPS for classifier in range(classifiers)]


def with_memory_maps(options: OutputOptions, models: Sequence[Model]) -> OutputOptions:
    """The options with the names of the maps in place of the word that asks for them.

    Raises:
        MemberError: if they are asked for and a model is no mixture, or mixtures differ in their classifiers.
    """
    if MEMORY not in options.maps:
        return options
    counts = {model.folder: len(model.volumes.classifiers) for model in models if model.volumes.has_memory}
    if len(counts) < len(models) or len({*counts.values()}) > 1:
        found = ", ".join(f"{counts.get(model.folder, 'no')} classifiers in {model.folder}" for model in models)
        raise MemberError(
            f"--maps {MEMORY} shows the classifiers of a mixture, as many in each model; found {found}. Predict with "
            f"models of a Streaming trainer alone, or leave out {MEMORY}."
        )
    [classifiers] = {*counts.values()}
    maps = [each for name in options.maps for each in (memory_map_names(classifiers) if name == MEMORY else [name])]
    return replace(options, maps=tuple(maps))


class MemoryMaps:
    """The weighted mean over the members of their classifiers' memory, at the image's resolution.

    Args:
        frame: the part of the image that the models predict.
    """

    def __init__(self, frame: CaseFrame) -> None:
        self.frame = frame
        self._sum: torch.Tensor | None = None  # (2K, *box), in the order of `memory_map_names`
        self._weight = 0.0

    def add(self, position: int, step: Pass, classifiers: Sequence[torch.Tensor]) -> None:
        """Adds a member.

        Args:
            position: index of its model.
            step: the pass.
            classifiers: each classifier's logits (C, *spatial).
        """
        memory = self.frame.models[position].volumes.memory(classifiers)
        values = torch.cat([memory.uncertainty, memory.weights])  # (2K, *spatial)
        volume = self.frame.in_box(position, values, torch.zeros(len(values)))
        placed = assembled(volume, (len(values), *self.frame.box_shape)).cpu() * step.weight
        self._sum = placed if self._sum is None else self._sum.add_(placed)
        self._weight += step.weight

    def as_maps(self) -> dict[str, np.ndarray]:
        """Name to map (*box) float32; empty if no member was added."""
        if self._sum is None:
            return {}
        names = memory_map_names(len(self._sum) // 2)
        return {name: as_map(values / self._weight) for name, values in zip(names, self._sum, strict=True)}
