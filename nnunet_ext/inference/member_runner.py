"""Runs the members of a model over prepared images: weights, batches, precision, dropout, compilation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import nn

from nnunet_ext.architectures.dropout_draws import dropout_draw
from nnunet_ext.architectures.streaming import StreamingNetwork
from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.runtimes.batch_size import BatchSize, fitting_batch_size
from nnunet_ext.inference.runtimes.precision import SINGLE, Arithmetic, log_cost
from nnunet_ext.inference.sliding_window import Tile, TiledImage, run_batch
from nnunet_ext.inference.volume_memory import network_logits
from nnunet_ext.models.model import Model
from nnunet_ext.models.weight_store import point_at

COMPILE_VARIABLE = "nnUNet_compile"


class MemberRunner:
    """The members of one model as functions of an image.

    Args:
        model: whose network takes the members' weights in turn.
        device: where it runs.
        arithmetic: in which precision.
    """

    def __init__(self, model: Model, device: torch.device, arithmetic: Arithmetic) -> None:
        self.model = model
        self.device = device
        self.arithmetic = arithmetic
        self._batch_size: BatchSize | None = None
        self._cost_is_known = arithmetic.weights == torch.float32

    def logits(self, step: Pass, tiled: TiledImage, tiles: Sequence[Tile] | None = None) -> torch.Tensor:
        """One member's logits, (C, *spatial) in fp32 where the image is.

        Args:
            step: which member, and the flips that it averages.
            tiled: the image.
            tiles: the only ones to look at; None stands for all.
        """
        if not self._cost_is_known:
            self._tell_cost_of_precision(step, tiled)
        self.model.load(step.member)
        with dropout_draw(self.model.network, step.member.dropout_seed, self.device):
            return network_logits(
                self.network,
                tiled,
                step.flips,
                device=self.device,
                arithmetic=self.arithmetic,
                batch_size=self._fitting_batch_size(tiled),
                tiles=tiles,
            )

    @cached_property
    def network(self) -> nn.Module:
        """The model's network, compiled where `nnUNet_compile` asks for it, as by stock's predictor."""
        network = self.model.network
        wanted = os.environ.get(COMPILE_VARIABLE, "").lower() in ("true", "1", "t")
        if not wanted or isinstance(network, StreamingNetwork):  # a mixture's classifiers are called one by one
            return network
        compiled: Any = torch.compile(network)  # its stubs know functions only
        return compiled

    def _fitting_batch_size(self, tiled: TiledImage) -> BatchSize:
        """Found with the first case, and kept when it was halved."""
        if self._batch_size is None:
            first = [(tiled.tiles[0], ())]
            self._batch_size = fitting_batch_size(
                tiled.window.shape,
                self.device,
                lambda: run_batch(self.model.network, tiled, first, self.device, self.arithmetic),
            )
        return self._batch_size

    def _tell_cost_of_precision(self, step: Pass, tiled: TiledImage) -> None:
        """Once, for weights in a lower precision than stock's: runs one patch in single precision as well."""
        self._cost_is_known = True
        middle = [(tiled.tiles[len(tiled.tiles) // 2], ())]
        point_at(self.model.network, step.member.weights())
        single = run_batch(self.model.network, tiled, middle, self.device, SINGLE)
        self.model.load(step.member)
        reduced = run_batch(self.model.network, tiled, middle, self.device, self.arithmetic)
        log_cost(single, reduced, regions=self.model.labels.has_regions)
