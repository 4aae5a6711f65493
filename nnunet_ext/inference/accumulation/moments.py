"""Running moments of the members' probabilities, in one pass and in memory that does not grow with the members."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from nnunet_ext.inference.accumulation.entropy import entropy, largest_entropy
from nnunet_ext.inference.accumulation.member_update import Sums, Update, move_mean, plain_update
from nnunet_ext.inference.accumulation.slabs import Slab, Where


class Moments:
    """Mean, entropies and variance of the class probabilities of an ensemble.

    Members are added one at a time and not kept. All sums are fp32. Entropies are in nats; divide them by
    `largest_entropy` for values in [0, 1].

    Args:
        regions: the outputs are overlapping regions with one sigmoid each, instead of classes with a softmax. The
            entropy is then the sum of the regions' binary entropies.
        with_variance: also track the variance, which takes one more volume per class.
        at_once: take all classes in few calls, which suits GPUs, instead of one after the other, which keeps
            temporaries small; None decides by the device of the first member.
        update: takes a member into the moments where all classes are taken at once, such as a compiled one; None is
            plain torch.
    """

    def __init__(
        self,
        *,
        regions: bool = False,
        with_variance: bool = True,
        at_once: bool | None = None,
        update: Update | None = None,
    ) -> None:
        self.regions = regions
        self.with_variance = with_variance
        self.at_once = at_once
        self._take_at_once = plain_update(regions=regions) if update is None else update
        self.members = 0
        self._weight: float | torch.Tensor = 0.0
        self._member_weight: float | torch.Tensor = 0.0
        self._mean: torch.Tensor | None = None
        self._expected_entropy: torch.Tensor | None = None
        self._squares: torch.Tensor | None = None

    def add(self, probabilities: torch.Tensor, weight: float | torch.Tensor = 1.0) -> None:
        """Adds one member.

        Args:
            probabilities: (C, *spatial); not modified.
            weight: relative weight of the member in all averages: one number, or one per voxel (*spatial), where 0
                leaves the voxel unchanged. The first member needs a positive weight everywhere.

        Raises:
            ValueError: if the shape differs from the first member's, or a single number is not positive and finite.
        """
        self.begin_member(tuple(probabilities.shape), weight, device=probabilities.device)
        whole = tuple(slice(0, size) for size in probabilities.shape[1:])
        self.add_slab(Slab(whole, probabilities))

    def begin_member(
        self, shape: Sequence[int], weight: float | torch.Tensor = 1.0, *, device: torch.device | None = None
    ) -> None:
        """Starts a member whose probabilities follow in slabs (`add_slab`), which together must cover the volume.

        Args:
            shape: (C, *spatial) of the whole volume.
            weight: as for `add`.
            device: where the sums are kept; ignored after the first member.

        Raises:
            ValueError: as for `add`.
        """
        if not isinstance(weight, torch.Tensor) and not 0 < weight < math.inf:
            raise ValueError(f"The weight of a member must be positive and finite; found {weight}.")
        self._begin(shape, device)
        self._weight = self._weight + weight
        self._member_weight = weight

    def _begin(self, shape: Sequence[int], device: torch.device | None) -> None:
        """Counts a member, and makes room for the sums before the first."""
        if self._mean is None:
            self._mean = torch.empty(tuple(shape), device=device)
            self.at_once = self._mean.device.type != "cpu" if self.at_once is None else self.at_once
            self._expected_entropy = torch.empty(tuple(shape[1:]), device=device)
            self._squares = torch.zeros_like(self._mean) if self.with_variance else None
        if tuple(shape) != tuple(self._mean.shape):
            raise ValueError(
                f"All members must have the shape of the first, {tuple(self._mean.shape)}; found {tuple(shape)}."
            )
        self.members += 1

    def add_slab(self, slab: Slab) -> None:
        """Adds a part of the member that `begin_member` started; several threads may add slabs at the same time."""
        where = slab.where
        self._update(where, slab.values.detach().float(), _part(self._member_weight, where), self._weight_at(where))

    def _update(
        self, where: Where, values: torch.Tensor, weight: float | torch.Tensor, total: float | torch.Tensor
    ) -> None:
        """Takes values (C, *size of where) of a member; `total` is the sum of the weights so far, with its own."""
        mean, expected_entropy = self._required(self._mean), self._required(self._expected_entropy)
        if self.members == 1:
            all_channels = (slice(None), *where)
            mean[all_channels] = values
            expected_entropy[where] = self._entropy(values)
            return
        share = weight / total
        if self.at_once:
            every = (slice(None), *where)
            squares = None if self._squares is None else self._squares[every]
            self._take_at_once(Sums(mean[every], expected_entropy[where], squares), values, weight, share)
            return
        for channel, value in enumerate(values):
            self._move_class((channel, *where), value, weight, share)
        expected_entropy[where].lerp_(self._entropy(values), share)

    def _move_class(
        self,
        index: tuple[int | slice, ...],
        values: torch.Tensor,
        weight: float | torch.Tensor,
        share: float | torch.Tensor,
    ) -> None:
        """Moves the mean of one class and its squares towards a member's values there; `index` is theirs."""
        squares = None if self._squares is None else self._squares[index]
        move_mean(self._required(self._mean)[index], squares, values, weight, share)

    def _entropy(self, probabilities: torch.Tensor) -> torch.Tensor:
        return entropy(probabilities, regions=self.regions, at_once=bool(self.at_once))

    def part(self, where: Where) -> Moments:
        """The moments of some of the voxels, as views of these."""
        all_channels = (slice(None), *where)
        part = Moments(regions=self.regions, with_variance=self.with_variance, at_once=self.at_once)
        part.members = self.members
        part._weight = self._weight_at(where)
        part._mean = self.mean()[all_channels]
        part._expected_entropy = self.expected_entropy()[where]
        part._squares = None if self._squares is None else self._squares[all_channels]
        return part

    def _weight_at(self, where: Where) -> float | torch.Tensor:
        return _part(self._weight, where)

    def weight(self) -> float | torch.Tensor:
        """The sum of the members' weights; (*spatial) if it differs from voxel to voxel."""
        return self._weight

    def largest_weight(self) -> float:
        """The largest value of `weight` over all voxels."""
        return float(self._weight.max()) if isinstance(self._weight, torch.Tensor) else self._weight

    def mean(self) -> torch.Tensor:
        """p̄, (C, *spatial): the predictive distribution (arXiv 2212.06278, Eq. 2)."""
        return self._required(self._mean)

    def predictive_entropy(self) -> torch.Tensor:
        """H(p̄) in nats, (*spatial): total uncertainty (arXiv 2212.06278, Eq. 3)."""
        if self.members == 1:
            return self.expected_entropy()  # with a single member they are the same
        return self._entropy(self.mean())

    def expected_entropy(self) -> torch.Tensor:
        """E[H(p_m)] in nats, (*spatial): the mean of the members' own entropies."""
        return self._required(self._expected_entropy)

    def mutual_information(self) -> torch.Tensor:
        """H(p̄) − E[H(p_m)] = E[KL(p_m ‖ p̄)] in nats, (*spatial), never negative: the members' disagreement."""
        return (self.predictive_entropy() - self.expected_entropy()).clamp_min_(0)  # rounding can give −1e-8

    def variance(self) -> torch.Tensor:
        """Population variance of the members' probabilities, (C, *spatial): not corrected for the number of members.

        Raises:
            RuntimeError: if the variance was not tracked, or no member was added.
        """
        if not self.with_variance:
            raise RuntimeError("The variance was not tracked. Create Moments(with_variance=True).")
        return self._required(self._squares) / self._weight

    def largest_entropy(self) -> float:
        """The largest possible entropy in nats: ln C for C classes, R·ln 2 for R regions."""
        return largest_entropy(len(self.mean()), regions=self.regions)

    @staticmethod
    def _required(value: torch.Tensor | None) -> torch.Tensor:
        if value is None:
            raise RuntimeError("Moments need at least one member; none was added. Call add() first.")
        return value


def _part(weight: float | torch.Tensor, where: Where) -> float | torch.Tensor:
    return weight[where] if isinstance(weight, torch.Tensor) else weight
