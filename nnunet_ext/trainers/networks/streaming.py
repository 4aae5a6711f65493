"""Streaming: K classifiers trained end to end, mixed by their memory of a stack of slices (arXiv 2502.09269)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any, Literal, cast

from torch import nn

from nnunet_ext.architectures.streaming import (
    FixedWeights,
    MemoryWeights,
    Mixture,
    StreamingNetwork,
    WeightRule,
    with_dropout,
)
from nnunet_ext.losses.mixture_loss import MixtureLoss
from nnunet_ext.trainers.data.slice_stacks import StackLoading
from nnunet_ext.trainers.losses.one_output import loss_without_terms
from nnunet_ext.trainers.networks.network_part import NetworkPart, network_parts_of
from nnunet_ext.trainers.part import PLANNED, load


class Streaming(StackLoading):
    """K classifiers in one network, each initialised differently, mixed with memory-based or fixed weights.

    The classifiers are the network parts of the trainer's name in turn, in the order of the table of parts, or copies
    of the planned network if the name has none. With `with_planned` the planned network comes before them. `networks`
    overrides them with dotted paths of network parts, or "planned" for the planned network.
    """

    classifiers: int = 2
    networks: Sequence[str] = ()
    weighting: Literal["memory", "fixed"] = "memory"
    with_planned: bool = False
    fixed_weights: Sequence[float] = ()  # one per classifier; empty means equal weights
    weight_ratio: Sequence[int] = ()  # of the name, instead of fixed_weights
    kappa: float = 1.0
    mixture: Mixture = "log"
    bottleneck_dropout: float = 0.5
    dropout_percent: int | None = None  # of the name, instead of bottleneck_dropout
    classifier_loss_weight: float | None = None  # None is 1 - 1/K

    @classmethod
    def build_network_architecture(  # a classmethod, so that super() finds other parts
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """One network with all classifiers."""
        arguments = (configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision)
        build_planned = super().build_network_architecture

        def build(network: type[NetworkPart] | None) -> nn.Module:
            built = network.build_network(*arguments) if network else build_planned(plans_manager, *arguments)
            return with_dropout(built, cls.dropout_rate())

        classifiers = [build(network) for network in cls.classifier_networks()]
        shows_classifiers = cls.weight_of_classifier_loss() > 0
        return StreamingNetwork(classifiers, cls.weight_rule(), cls.mixture, shows_classifiers=shows_classifiers)

    @classmethod
    def dropout_rate(cls) -> float:
        """The share of the deepest features that are dropped in training."""
        return cls.bottleneck_dropout if cls.dropout_percent is None else cls.dropout_percent / 100

    @classmethod
    def weight_of_classifier_loss(cls) -> float:
        """The weight of each classifier's own loss."""
        return 1 - 1 / cls.classifiers if cls.classifier_loss_weight is None else cls.classifier_loss_weight

    def _build_loss(self) -> nn.Module:
        stock = super()._build_loss()
        weight = self.weight_of_classifier_loss()
        return MixtureLoss(stock, loss_without_terms(stock), weight) if weight else stock

    @classmethod
    def classifier_networks(cls) -> list[type[NetworkPart] | None]:
        """The network part of each classifier; None is the planned network.

        Raises:
            ValueError: if there are more networks than classifiers.
        """
        networks: Sequence[type[NetworkPart] | None]
        networks = [None if path == PLANNED else load(path) for path in cls.networks]
        planned = [None] if cls.with_planned else []
        networks = networks or [*planned, *network_parts_of(cls)] or [None]
        if len(networks) > cls.classifiers:
            raise ValueError(
                f"A mixture needs at least one classifier per network; {cls.__name__} has {len(networks)} networks "
                f"and {cls.classifiers} classifiers. Write Streaming{len(networks)}."
            )
        return list(islice(cycle(networks), cls.classifiers))

    @classmethod
    def classifier_names(cls) -> list[str]:
        """What each classifier is: "planned", or the name of its part."""
        return [network.__name__ if network else PLANNED for network in cls.classifier_networks()]

    @classmethod
    def weight_rule(cls) -> WeightRule:
        """The rule that weights the classifiers.

        Raises:
            ValueError: if `weighting` is unknown, there is not one fixed weight per classifier, or one is negative,
                or all are 0.
        """
        if cls.weighting == "memory":
            return MemoryWeights(cls.kappa)
        if cls.weighting != "fixed":
            raise ValueError(f'weighting must be "memory" or "fixed"; found {cls.weighting!r}.')
        weights = cls.weight_ratio or cls.fixed_weights or [1] * cls.classifiers
        if len(weights) != cls.classifiers or min(weights) < 0 or not sum(weights):
            raise ValueError(
                f"Fixed weights must be one number per classifier, not negative and not all 0; found "
                f"{', '.join(map(str, weights))} for {cls.classifiers} classifiers. Give {cls.classifiers} numbers, "
                f"or none for equal weights."
            )
        return FixedWeights([weight / sum(weights) for weight in weights])

    def training_network(self, network: nn.Module) -> nn.Module:
        streaming = cast(StreamingNetwork, super().training_network(network))
        if self.mixture == "paper" and self.label_manager.has_regions:
            raise ValueError(
                'mixture = "paper" applies a second softmax, which needs classes; found a dataset of regions. '
                'Use mixture = "log".'
            )
        streaming.declare_regions(self.label_manager.has_regions)
        rule = self.weight_rule()
        fixed = f"the fixed weights {', '.join(f'{weight:g}' for weight in getattr(rule, 'weights', ()))}"
        self.print_to_log_file(
            f"Streaming: the classifiers {', '.join(self.classifier_names())} in one network, mixed by "
            f"{'the memory of the stack' if self.weighting == 'memory' else fixed}."
        )
        return streaming

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        # -pretrained_weights of another dataset overwrite the flag
        cast(StreamingNetwork, self.plain_network).declare_regions(self.label_manager.has_regions)
