"""Runs the members of a model over prepared images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.runtimes.batch_size import BatchSize
from nnunet_ext.inference.runtimes.runtime import Runtime
from nnunet_ext.inference.sliding_window import RunPatches, Tile, TiledImage, sliding_window_logits
from nnunet_ext.inference.transforms.flip import IDENTITY
from nnunet_ext.inference.transforms.transform import Observer, Transform
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

    def logits(
        self,
        step: Pass,
        tiled: TiledImage,
        tiles: Sequence[Tile] | None = None,
        observe: Observer | None = None,
    ) -> torch.Tensor:
        """One member's logits over the image: their mean over its transforms, each where it saw the image.

        Each classifier of a mixture runs over the whole image first, and the mixture is computed last, because its
        weights depend on all slices (arXiv 2502.09269, Eq. 3).

        Args:
            step: the member, and the transforms that it averages over.
            tiled: the image.
            tiles: the tiles that are needed; None means all. Transforms that interpolate run on all of them.
            observe: receives each transform with the member's logits under it alone, brought back to the image.

        Returns:
            (C, *spatial) fp32, on the image's device.
        """
        self.runtime.load(step.member)
        return self.logits_as_loaded(step, tiled, tiles, observe)

    @torch.inference_mode()
    def logits_as_loaded(
        self,
        step: Pass,
        tiled: TiledImage,
        tiles: Sequence[Tile] | None = None,
        observe: Observer | None = None,
    ) -> torch.Tensor:
        """`logits` with the weights that the network has, which are those of the member or adapted from them."""
        return self.model.volumes.combine(self._of_each_classifier(step, tiled, tiles, observe))

    @torch.inference_mode()
    def classifier_logits(
        self,
        step: Pass,
        tiled: TiledImage,
        tiles: Sequence[Tile] | None = None,
        observe: Observer | None = None,
    ) -> list[torch.Tensor]:
        """What `logits` combines: the logits (C, *spatial) of each classifier; arguments as there."""
        self.runtime.load(step.member)
        return self._of_each_classifier(step, tiled, tiles, observe)

    def _of_each_classifier(
        self, step: Pass, tiled: TiledImage, tiles: Sequence[Tile] | None, observe: Observer | None
    ) -> list[torch.Tensor]:
        first = (slice(None), *tiled.tiles[0])
        batch_size = self.runtime.fitting_batch_size(tiled.image[first])
        run_group = partial(self._logits_of_classifiers, tiled=tiled, tiles=tiles, batch_size=batch_size)
        groups = step.groups(apart=observe is not None)
        mean = WeightedMean()
        for group in groups:
            over_classifiers = run_group(group)
            if observe is not None:
                observe(group[0], self.model.volumes.combine(over_classifiers))
            if len(groups) == 1:
                return over_classifiers
            view = group[0].field_of_view(over_classifiers[0].shape[1:], over_classifiers[0].device)
            mean.add(over_classifiers, len(group) if view is None else view)
        return mean.values()

    def _logits_of_classifiers(
        self,
        group: Sequence[Transform],
        *,
        tiled: TiledImage,
        tiles: Sequence[Tile] | None,
        batch_size: BatchSize,
    ) -> list[torch.Tensor]:
        """The logits of each classifier over the image, averaged over exact transforms or under another one alone."""
        runs = [partial(self.runtime.run, classifier=number) for number in range(self.runtime.classifiers)]
        if group[0].exact:
            return [sliding_window_logits(run, tiled, group, batch_size=batch_size, tiles=tiles) for run in runs]
        return [logits_of_transformed(run, tiled, group[0], batch_size) for run in runs]

    @property
    def is_mixture(self) -> bool:
        """Whether the network weights several classifiers."""
        return self.model.volumes.has_memory

    @property
    def needs_all_tiles(self) -> bool:
        """Whether the network must run on all tiles as soon as one of them is needed."""
        return self.model.volumes.needs_whole_volume


class WeightedMean:
    """Running mean of the logits of each classifier, over groups of transforms."""

    def __init__(self) -> None:
        self._sums: list[torch.Tensor] = []
        self._weight: float | torch.Tensor = 0.0

    def add(self, logits: Sequence[torch.Tensor], weight: float | torch.Tensor) -> None:
        """Adds one group.

        Args:
            logits: (C, *spatial) of each classifier; overwritten.
            weight: one number, or (*spatial). The first one must be positive everywhere.
        """
        weighted = [values.mul_(weight) for values in logits]
        if self._sums:
            weighted = [total.add_(values) for total, values in zip(self._sums, weighted, strict=True)]
        self._sums = weighted
        self._weight = self._weight + weight

    def values(self) -> list[torch.Tensor]:
        """The mean of each classifier; to be called once."""
        return [total.div_(self._weight) for total in self._sums]


def logits_of_transformed(
    run: RunPatches, tiled: TiledImage, transform: Transform, batch_size: BatchSize
) -> torch.Tensor:
    """Logits under a transform that acts on the whole volume, brought back to the image class by class.

    Args:
        run: runs the network on patches.
        tiled: the image.
        transform: the transform.
        batch_size: patches per batch.

    Returns:
        (C, *spatial) fp32; where the transform did not see the image, without meaning.
    """
    image = tiled.without_padding
    logits = sliding_window_logits(run, tiled.showing(transform.apply(image)), [IDENTITY], batch_size=batch_size)
    for number in range(len(logits)):
        one = slice(number, number + 1)
        logits[one] = transform.undo(logits[one], image)
    return logits
