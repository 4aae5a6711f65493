"""Streaming: K classifiers trained end to end and mixed by the memory of a stack of slices (arXiv 2502.09269)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from nnunet_ext.architectures.streaming import (
    FixedWeights,
    MemoryWeights,
    Mixture,
    StreamingNetwork,
    WeightRule,
    with_dropout,
)
from nnunet_ext.trainers.data.slice_stacks import StackLoading
from nnunet_ext.trainers.networks.deeplab import planned_deeplab

UNET_SHARE = 0.7  # of a U-Net beside a DeepLabV3+ with fixed weights; the paper's optimum


class Streaming(StackLoading):
    """K copies of the planned network, each with its own first weights, mixed by memory-based weights."""

    classifiers: int = 2
    kappa: float = 1.0
    mixture: Mixture = "log"
    bottleneck_dropout: float = 0.5

    @classmethod
    def build_network_architecture(  # a classmethod, so that super() finds other parts
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The classifiers as one network."""
        arguments = (configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision)
        build = super().build_network_architecture
        classifiers = cls.build_classifiers(lambda: build(plans_manager, *arguments), *arguments)
        return StreamingNetwork(classifiers, cls.weight_rule(), cls.mixture)

    @classmethod
    def build_classifiers(cls, build_planned: Any, *arguments: Any) -> list[nn.Module]:
        """The classifiers, each with its own first weights."""
        return [with_dropout(build_planned(), cls.bottleneck_dropout) for _ in range(cls.classifiers)]

    @classmethod
    def weight_rule(cls) -> WeightRule:
        """How the classifiers are weighed."""
        return MemoryWeights(cls.kappa)

    def training_network(self, network: nn.Module) -> nn.Module:
        streaming = cast(StreamingNetwork, super().training_network(network))
        if self.mixture == "paper" and self.label_manager.has_regions:
            raise ValueError(
                'mixture = "paper" applies a second softmax, which regions do not have; found a dataset of regions. '
                'Use mixture = "log".'
            )
        streaming.declare_regions(self.label_manager.has_regions)
        return streaming

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        # -pretrained_weights of another dataset bring their own flag
        cast(StreamingNetwork, self.plain_network).declare_regions(self.label_manager.has_regions)


class StreamingFixed(Streaming):
    """The same with equal weights everywhere."""

    @classmethod
    def fixed_weights(cls) -> Sequence[float]:
        """One weight a classifier, sum 1."""
        return [1 / cls.classifiers] * cls.classifiers

    @classmethod
    def weight_rule(cls) -> WeightRule:
        return FixedWeights(cls.fixed_weights())


class StreamingUNetD3P(Streaming):
    """The planned network and a DeepLabV3+, mixed by memory-based weights."""

    @classmethod
    def build_classifiers(cls, build_planned: Any, *arguments: Any) -> list[nn.Module]:
        return [with_dropout(build_planned(), cls.bottleneck_dropout), planned_deeplab(*arguments)]


class StreamingFixedUNetD3P(StreamingUNetD3P, StreamingFixed):
    """The planned network and a DeepLabV3+ with the weights 0.7 and 0.3."""

    @classmethod
    def fixed_weights(cls) -> Sequence[float]:
        return [UNET_SHARE, 1 - UNET_SHARE]
