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
    """Runs each member of one model over an image.

    Args:
        model: the model whose members run.
        runtime: runs the model's network.
    """

    def __init__(self, model: Model, runtime: Runtime) -> None:
        self.model = model
        self.runtime = runtime

    def logits(self, step: Pass, tiled: TiledImage, tiles: Sequence[Tile] | None = None) -> torch.Tensor:
        """One member's logits over the image.

        Each classifier of a mixture runs over the whole image first, and the mixture is computed last, because its
        weights depend on all slices (arXiv 2502.09269, Eq. 3).

        Args:
            step: the member, and the transforms that it averages over.
            tiled: the image.
            tiles: the tiles to run on; None means all.

        Returns:
            (C, *spatial) fp32, on the image's device.
        """
        self.runtime.load(step.member)
        return self.logits_as_loaded(step, tiled, tiles)

    def logits_as_loaded(self, step: Pass, tiled: TiledImage, tiles: Sequence[Tile] | None = None) -> torch.Tensor:
        """`logits` with the weights that the network has, which are those of the member or adapted from them."""
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
        """Whether the network must run on all tiles as soon as one of them is needed."""
        return self.model.volumes.needs_whole_volume
