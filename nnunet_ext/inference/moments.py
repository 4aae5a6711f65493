"""Running moments over the members' probabilities: one pass, memory that does not grow with the members."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from nnunet_ext.inference.slabs import Slab, slabs_of

Where = tuple[slice, ...]

SMALLEST_NORMAL = torch.finfo(torch.float32).tiny
VOXELS_PER_PIECE = 1 << 16  # of one class: their temporaries stay in the cache


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
        self._weight: float | torch.Tensor = 0.0
        self._mean: torch.Tensor | None = None
        self._expected_entropy: torch.Tensor | None = None
        self._squares: torch.Tensor | None = None

    def add(self, probabilities: torch.Tensor, weight: float | torch.Tensor = 1.0) -> None:
        """Takes one member in.

        Args:
            probabilities: (C, *spatial); is not changed.
            weight: relative weight of the member in all averages: a number, or one a voxel (*spatial), where 0 leaves
                the voxel as it is. The first member needs a positive weight everywhere.

        Raises:
            ValueError: if the shape differs from the first member's, or a number is not positive.
        """
        self.add_slabs(tuple(probabilities.shape), slabs_of(probabilities), weight)

    def add_slabs(self, shape: Sequence[int], slabs: Iterable[Slab], weight: float | torch.Tensor = 1.0) -> None:
        """Takes one member in that comes in pieces.

        Args:
            shape: (C, *spatial) of the whole.
            slabs: of its probabilities; together they are the whole.
            weight: as for `add`.

        Raises:
            ValueError: as `add`.
        """
        if not isinstance(weight, torch.Tensor) and not 0 < weight < math.inf:
            raise ValueError(f"A member's weight must be positive; found {weight}.")
        if self._mean is not None and tuple(shape) != tuple(self._mean.shape):
            raise ValueError(
                f"All members must have the shape of the first, {tuple(self._mean.shape)}; found {tuple(shape)}."
            )
        self.members += 1
        self._weight = self._weight + weight
        for slab in slabs:
            values = slab.values.detach().float()
            if self._mean is None or self._expected_entropy is None:
                self._mean = torch.zeros(tuple(shape), device=values.device)
                self._expected_entropy = torch.zeros(tuple(shape[1:]), device=values.device)
                self._squares = torch.zeros_like(self._mean) if self.with_variance else None
            self._add_slab(slab.where, values, weight)

    def _add_slab(self, where: Where, values: torch.Tensor, weight: float | torch.Tensor) -> None:
        share = _part(weight, where) / _part(self._weight, where)
        mean, expected_entropy = self._required(self._mean), self._required(self._expected_entropy)
        for channel, value in enumerate(values):  # one class at a time: temporaries cost as much as the sums
            channel_mean = mean[channel][where]
            if self._squares is None:
                channel_mean.lerp_(value, share)
                continue
            difference = value - channel_mean
            channel_mean.lerp_(value, share)
            # Welford's update; sums of squares would go negative
            difference.mul_(value - channel_mean).mul_(_part(weight, where))
            self._squares[channel][where].add_(difference)
        expected_entropy[where].lerp_(entropy(values, regions=self.regions), share)

    def weight(self) -> float | torch.Tensor:
        """The members' weights together; (*spatial) where they differ from voxel to voxel."""
        return self._weight

    def largest_weight(self) -> float:
        """The same, where it is largest."""
        return float(self._weight.max()) if isinstance(self._weight, torch.Tensor) else self._weight

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
    total = torch.zeros_like(probabilities[0], memory_format=torch.contiguous_format)
    pieces = total.view(-1).split(VOXELS_PER_PIECE) if total.device.type == "cpu" else (total.view(-1),)
    for channel in probabilities:  # one class at a time: no temporary of the size of all classes
        for piece, values in zip(pieces, channel.reshape(-1).split(len(pieces[0])), strict=True):
            subtract_p_log_p(piece, values)
            if regions:
                subtract_p_log_p(piece, 1 - values)
    return total


def subtract_p_log_p(total: torch.Tensor, values: torch.Tensor) -> None:
    """total − p·ln p, in place, with 0·ln 0 = 0.

    As `torch.special.entr`, whose kernel for CPUs takes six times as long.
    """
    total.addcmul_(values.clamp_min(SMALLEST_NORMAL).log_(), values, value=-1)


def _part(weight: float | torch.Tensor, where: Where) -> float | torch.Tensor:
    return weight[where] if isinstance(weight, torch.Tensor) else weight


def largest_entropy(channels: int, *, regions: bool) -> float:
    """ln C for C classes, R·ln 2 for R regions."""
    return channels * math.log(2) if regions else math.log(channels)
