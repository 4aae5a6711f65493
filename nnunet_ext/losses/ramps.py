"""Weights of loss terms as pure functions of the epoch, so that a resumed training equals an uninterrupted one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf
from types import MappingProxyType
from typing import Protocol

Means = Mapping[str, Sequence[float]]  # of each epoch before, by the term's name; NaN where it was not computed
NOTHING_YET: Means = MappingProxyType({})


class Ramp(Protocol):
    """The weight of a term in an epoch."""

    def __call__(self, epoch: int, total_epochs: int, means: Means = NOTHING_YET) -> float:
        """A weight, finite and at least 0; the first epoch is 0."""
        ...


@dataclass(frozen=True)
class ConstantRamp:
    """The same weight in every epoch.

    Raises:
        ValueError: if it is negative or not finite.
    """

    weight: float

    def __post_init__(self) -> None:
        require_weight(self.weight)

    def __call__(self, epoch: int, total_epochs: int, means: Means = NOTHING_YET) -> float:
        """The weight, which does not depend on the epoch."""
        return self.weight


@dataclass(frozen=True)
class LinearRamp:
    """A weight that changes linearly from one value to another during a part of the training.

    `LinearRamp(0, 0.5, begin=0.3, end=0.6)` is 0 up to epoch 300 of 1000, 0.25 at epoch 450 and 0.5 from 600 on.

    Args:
        first: the weight before the ramp.
        last: the weight after the ramp.
        begin: start of the ramp as a fraction of all epochs.
        end: end of the ramp as a fraction of all epochs; if it equals `begin`, the weight jumps.

    Raises:
        ValueError: if a weight is negative or not finite, or 0 <= begin <= end <= 1 does not hold.
    """

    first: float
    last: float
    begin: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        require_weight(self.first)
        require_weight(self.last)
        if not 0 <= self.begin <= self.end <= 1:
            raise ValueError(
                f"A ramp must begin and end within the training, 0 <= begin <= end <= 1; found {self.begin} and "
                f"{self.end}."
            )

    def __call__(self, epoch: int, total_epochs: int, means: Means = NOTHING_YET) -> float:
        """The weight of an epoch."""
        begin, end = self.begin * total_epochs, self.end * total_epochs
        if epoch >= end:
            return self.last
        if epoch <= begin:
            return self.first
        return self.first + (self.last - self.first) * (epoch - begin) / (end - begin)


@dataclass(frozen=True)
class GaussianRamp:
    """Laine and Aila's ramp (arXiv 1610.02242), exp(-5 (1 - t)^2) times the last weight; it begins at 0.7 % of it.

    Args:
        last: the weight after the ramp.
        end: end of the ramp, where t is 1, as a fraction of all epochs.

    Raises:
        ValueError: if the weight is negative or not finite, or 0 < end <= 1 does not hold.
    """

    last: float
    end: float = 0.4

    def __post_init__(self) -> None:
        require_weight(self.last)
        if not 0 < self.end <= 1:
            raise ValueError(f"A ramp must end within the training, 0 < end <= 1; found {self.end}.")

    def __call__(self, epoch: int, total_epochs: int, means: Means = NOTHING_YET) -> float:
        """The weight in an epoch."""
        return self.last * exp(-5 * (1 - min(1.0, epoch / (self.end * total_epochs))) ** 2)


@dataclass(frozen=True)
class RebalanceRamp:
    """Kervadec's rebalance (arXiv 1812.07032): the term takes 0.01 of the loss more in each epoch, up to 0.99.

    It counts epochs, not parts of the training: 100 of them are the whole ramp, whatever the length is.

    Args:
        step: what is added in an epoch.
        last: the weight that stays.

    Raises:
        ValueError: if step or last is negative or not finite.
    """

    step: float = 0.01
    last: float = 0.99

    def __post_init__(self) -> None:
        require_weight(self.step)
        require_weight(self.last)

    def __call__(self, epoch: int, total_epochs: int, means: Means = NOTHING_YET) -> float:
        """The weight in an epoch."""
        return min(self.step * epoch, self.last)


@dataclass(frozen=True)
class EqualContribution:
    """Karimi's balance (arXiv 1904.10030): a term contributes as much as another one did in the epoch before.

    Measured by the largest mean that the term has had: a term that training brings close to 0 would otherwise get an
    ever larger weight, until one patch in which it is not 0 destroys the network. 0 in the first epoch, which only
    measures, and while one of the terms was not above 0.

    Args:
        term: the name of the term that gets the weight.
        reference: the name of the other one.
    """

    term: str
    reference: str

    def __call__(self, epoch: int, total_epochs: int, means: Means = NOTHING_YET) -> float:
        """The weight in an epoch."""
        own = max((mean for mean in means.get(self.term, ()) if mean > 0), default=0.0)  # NaN is not above 0
        other = next(iter(means.get(self.reference, ())[-1:]), 0.0)
        return other / own if own > 0 and other > 0 else 0.0


def require_weight(weight: float) -> None:
    """Refuses a weight that is negative or not finite."""
    if not 0 <= weight < inf:
        raise ValueError(f"The weight of a loss term must be finite and at least 0; found {weight}.")
