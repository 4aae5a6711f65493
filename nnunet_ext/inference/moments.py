"""Running moments over the members' probabilities: one pass, memory that does not grow with the members."""

from __future__ import annotations

import math

import torch


class Moments:
    """Mean, entropies and variance of the class probabilities of an ensemble.

    Members are added one at a time; nothing of a member is kept. All sums are fp32. Entropies are in nats;
    divide them by `largest_entropy` for values in [0, 1].

    Args:
        regions: the outputs are overlapping regions with a sigmoid each, not classes with one softmax. The entropy
            is then the sum of the regions' binary entropies.
        with_variance: also track the variance, which takes one more volume a class.
    """

    def __init__(self, *, regions: bool = False, with_variance: bool = True) -> None:
        self.regions = regions
        self.with_variance = with_variance
        self.members = 0
        self._weight = 0.0
        self._mean: torch.Tensor | None = None
        self._expected_entropy: torch.Tensor | None = None
        self._squares: torch.Tensor | None = None

    def add(self, probabilities: torch.Tensor, weight: float = 1.0) -> None:
        """Takes one member in.

        Args:
            probabilities: (C, *spatial); is not changed.
            weight: relative weight of the member in all averages.

        Raises:
            ValueError: if the shape differs from the first member's, or the weight is not positive.
        """
        if not 0 < weight < math.inf:
            raise ValueError(f"A member's weight must be positive; found {weight}.")
        values = probabilities.detach().float()
        if self._mean is None or self._expected_entropy is None:
            self._mean = torch.zeros_like(values)
            self._expected_entropy = torch.zeros_like(values[0])
            self._squares = torch.zeros_like(values) if self.with_variance else None
        if values.shape != self._mean.shape:
            raise ValueError(
                f"All members must have the shape of the first, {tuple(self._mean.shape)}; "
                f"found {tuple(values.shape)}."
            )
        self.members += 1
        self._weight += weight
        share = weight / self._weight
        for channel, value in enumerate(values):  # one class at a time: temporaries cost as much as the sums
            difference = value - self._mean[channel]
            self._mean[channel].add_(difference, alpha=share)
            if self._squares is not None:  # Welford's update; sums of squares would go negative
                self._squares[channel].addcmul_(difference, value - self._mean[channel], value=weight)
        self._expected_entropy += share * (entropy(values, regions=self.regions) - self._expected_entropy)

    def mean(self) -> torch.Tensor:
        """p̄, (C, *spatial): the predictive distribution (arXiv 2212.06278, Eq. 2)."""
        return self._required(self._mean)

    def predictive_entropy(self) -> torch.Tensor:
        """H(p̄) in nats, (*spatial): total uncertainty (arXiv 2212.06278, Eq. 3)."""
        return entropy(self.mean(), regions=self.regions)

    def expected_entropy(self) -> torch.Tensor:
        """E[H(p_m)] in nats, (*spatial): what the members are unsure of each on its own."""
        return self._required(self._expected_entropy)

    def mutual_information(self) -> torch.Tensor:
        """H(p̄) − E[H(p_m)] = E[KL(p_m ‖ p̄)] in nats, (*spatial), never negative: the members' disagreement."""
        return (self.predictive_entropy() - self.expected_entropy()).clamp_min_(0)  # −1e-8 by rounding

    def variance(self) -> torch.Tensor:
        """Variance of the members' probabilities, (C, *spatial), divided by their number (not by one less).

        Raises:
            RuntimeError: if the variance was not tracked, or no member was added.
        """
        if not self.with_variance:
            raise RuntimeError("The variance was not tracked. Create Moments(with_variance=True).")
        return self._required(self._squares) / self._weight

    def largest_entropy(self) -> float:
        """The entropy of no knowledge at all: ln C for classes, R·ln 2 for R regions."""
        return largest_entropy(len(self.mean()), regions=self.regions)

    @staticmethod
    def _required(value: torch.Tensor | None) -> torch.Tensor:
        if value is None:
            raise RuntimeError("Moments of no members do not exist. Call add() at least once.")
        return value


def entropy(probabilities: torch.Tensor, *, regions: bool = False) -> torch.Tensor:
    """Entropy of (C, *spatial) probabilities in nats, (*spatial); 0 where the distribution is certain.

    For regions it is the sum over the regions of the binary entropy.
    """
    total = torch.zeros_like(probabilities[0])
    for channel in probabilities:  # one class at a time: no temporary of the size of all classes
        total += torch.special.entr(channel)  # −p·ln p with 0·ln 0 = 0
        if regions:
            total += torch.special.entr(1 - channel)
    return total


def largest_entropy(channels: int, *, regions: bool) -> float:
    """ln C for C classes, R·ln 2 for R regions."""
    return channels * math.log(2) if regions else math.log(channels)
