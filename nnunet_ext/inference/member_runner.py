"""Runs the members of a model over prepared images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.runtimes.runtime import Runtime
from nnunet_ext.inference.sliding_window import Tile, TiledImage, sliding_window_logits
from nnunet_ext.models.model import Model


class MemberRunner:
    """The members of one model as functions of an image.

    Args:
        model: whose members run.
        runtime: what runs them.
    """

    def __init__(self, model: Model, runtime: Runtime) -> None:
        self.model = model
        self.runtime = runtime

    def logits(self, step: Pass, tiled: TiledImage, tiles: Sequence[Tile] | None = None) -> torch.Tensor:
        """One member's logits, (C, *spatial) in fp32 where the image is.

        Each classifier of a mixture goes over the image on its own, and the mixture comes last: its weights depend on
        all slices (arXiv 2502.09269, Eq. 3).

        Args:
            step: which member, and the transforms that it averages.
            tiled: the image.
            tiles: the only ones to look at; None stands for all.
        """
        self.runtime.load(step.member)
        first = (slice(None), *tiled.tiles[0])
        batch_size = self.runtime.fitting_batch_size(tiled.image[first])
        over_classifiers = [
            sliding_window_logits(
                partial(self.runtime.run, classifier=classifier),
                tiled,
                step.transforms,
                batch_size=batch_size,
                tiles=tiles,
            )
            for classifier in range(self.runtime.classifiers)
        ]
        with torch.inference_mode():
            return self.model.volumes.combine(over_classifiers)

    @property
    def needs_all_tiles(self) -> bool:
        """Whether no tile may be left out as long as one is needed."""
        return self.model.volumes.needs_whole_volume
