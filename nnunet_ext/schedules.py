"""Learning rates as pure functions of the epoch, so that a resumed run equals an uninterrupted one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

DecayHorizon = Literal["total", "cycle"]
FineTuningStage = Literal["decoder warm-up", "network warm-up", "decay"]


def cycle_length(total_epochs: int, cycles: int) -> int:
    """Epochs of one cycle, T_c = T / M.

    Raises:
        ValueError: if the cycles do not divide the epochs, or either is not positive.
    """
    if cycles < 1 or total_epochs < 1:
        raise ValueError(f"Epochs and cycles must be at least 1; found {total_epochs} epochs and {cycles} cycles.")
    if total_epochs % cycles:
        shorter = total_epochs - total_epochs % cycles
        raise ValueError(
            f"All cycles must have the same length, so the number of cycles must divide the number of epochs; "
            f"found {total_epochs} epochs and {cycles} cycles. "
            f"Use {f'{shorter} or ' if shorter else ''}{shorter + cycles} epochs."
        )
    return total_epochs // cycles


def plateau_first_epoch(epochs_in_cycle: int, plateau_start: float = 0.8) -> int:
    """Index, within its cycle, of the first epoch at the constant rate: ⌊γ·T_c⌋.

    The weights at the *end* of the epochs from this one on are the posterior samples; counted from 1 these are
    the epochs t with γ·T_c < t ≤ T_c.

    Raises:
        ValueError: if `plateau_start` is not in [0, 1).
    """
    if not 0 <= plateau_start < 1:
        raise ValueError(f"plateau_start must be at least 0 and below 1; found {plateau_start}.")
    return math.floor(plateau_start * epochs_in_cycle + 1e-9)  # 0.29 * 100 is 28.999999999999996


def rate_in_cycle(
    epoch_in_cycle: int,
    *,
    epochs_in_cycle: int,
    horizon_epochs: int,
    initial_lr: float,
    restart_lr: float,
    plateau_start: float,
    exponent: float,
) -> float:
    """Learning rate of the t_c-th epoch of a cycle (arXiv 2212.06278, Eq. 4); see `cyclical_learning_rate`."""
    if epoch_in_cycle == 0:
        return restart_lr
    decayed_epochs = min(epoch_in_cycle, plateau_first_epoch(epochs_in_cycle, plateau_start))
    return initial_lr * (1 - decayed_epochs / horizon_epochs) ** exponent


def cyclical_learning_rate(
    epoch: int,
    *,
    total_epochs: int,
    cycles: int = 3,
    initial_lr: float = 1e-2,
    restart_lr: float = 1e-1,
    plateau_start: float = 0.8,
    exponent: float = 0.9,
    decay_horizon: DecayHorizon = "total",
) -> float:
    """Learning rate of one epoch of cyclical checkpoint sampling (arXiv 2212.06278, Eq. 4).

    With T_c = T/M epochs per cycle and t_c = epoch mod T_c:

        α(0)   = α_r
        α(t_c) = α_0 · (1 − min(t_c, ⌊γ·T_c⌋) / H)^ε      for t_c ≥ 1

    so each cycle starts with one epoch at the restart rate, decays polynomially and ends on a plateau.

    Args:
        epoch: index of the epoch, from 0.
        total_epochs: T, epochs of the whole training.
        cycles: M; must divide T.
        initial_lr: α_0.
        restart_lr: α_r, used only in the first epoch of a cycle (the very first epoch of the training, too).
        plateau_start: γ, the share of a cycle after which the rate stays constant.
        exponent: ε.
        decay_horizon: what the decay divides by: H = T ("total") or H = T_c ("cycle"). The paper's text leaves it
            open; an independent re-implementation uses T.

    Raises:
        ValueError: if the cycles do not divide the epochs, the epoch is outside [0, T), or an option is unknown.
    """
    epochs_in_cycle = cycle_length(total_epochs, cycles)
    if not 0 <= epoch < total_epochs:
        raise ValueError(f"The epoch must be in 0 to {total_epochs - 1}; found {epoch}.")
    require_decay_horizon(decay_horizon)
    return rate_in_cycle(
        epoch % epochs_in_cycle,
        epochs_in_cycle=epochs_in_cycle,
        horizon_epochs=total_epochs if decay_horizon == "total" else epochs_in_cycle,
        initial_lr=initial_lr,
        restart_lr=restart_lr,
        plateau_start=plateau_start,
        exponent=exponent,
    )


def require_decay_horizon(decay_horizon: str) -> None:
    """Refuses an unknown decay horizon."""
    if decay_horizon not in ("total", "cycle"):
        raise ValueError(f'decay_horizon must be "total" or "cycle"; found {decay_horizon!r}.')


@dataclass(frozen=True)
class CyclePlan:
    """The cycles of one training of any length: rate, cycle and sampling of every epoch.

    A training whose epochs are not a multiple of the cycles is planned for the largest multiple, and its remaining
    epochs extend the last plateau. With fewer epochs than cycles every epoch is a cycle.

    Attributes are those of `cyclical_learning_rate`, and `skip_first_restart`: begin the training at `initial_lr`.

    Raises:
        ValueError: if epochs or cycles are not positive, or another value is out of range.
    """

    total_epochs: int
    cycles: int = 3
    initial_lr: float = 1e-2
    restart_lr: float = 1e-1
    plateau_start: float = 0.8
    exponent: float = 0.9
    decay_horizon: DecayHorizon = "total"
    skip_first_restart: bool = False

    def __post_init__(self) -> None:
        require_decay_horizon(self.decay_horizon)
        cycle_length(self.planned_epochs, self.used_cycles)
        plateau_first_epoch(self.total_epochs, self.plateau_start)

    @property
    def used_cycles(self) -> int:
        """The cycles that fit, never more than there are epochs."""
        return min(self.cycles, max(self.total_epochs, 1))

    @property
    def planned_epochs(self) -> int:
        """The largest multiple of the cycles that the training holds."""
        return self.total_epochs - self.total_epochs % max(self.used_cycles, 1)

    @property
    def epochs_in_cycle(self) -> int:
        """T_c."""
        return cycle_length(self.planned_epochs, self.used_cycles)

    def cycle_of(self, epoch: int) -> int:
        """Index of the cycle that an epoch belongs to, from 0."""
        return min(epoch // self.epochs_in_cycle, self.used_cycles - 1)

    def epoch_in_cycle(self, epoch: int) -> int:
        """t_c, from 0."""
        return epoch - self.cycle_of(epoch) * self.epochs_in_cycle

    def samples_weights_at(self, epoch: int) -> bool:
        """Whether the weights at the end of this epoch are a posterior sample: the plateau of any cycle."""
        return self.epoch_in_cycle(epoch) >= plateau_first_epoch(self.epochs_in_cycle, self.plateau_start)

    def learning_rate_at(self, epoch: int) -> float:
        """Learning rate of an epoch; equals `cyclical_learning_rate` where the cycles divide the epochs."""
        if epoch == 0 and self.skip_first_restart:
            return self.initial_lr
        return rate_in_cycle(
            self.epoch_in_cycle(epoch),
            epochs_in_cycle=self.epochs_in_cycle,
            horizon_epochs=self.planned_epochs if self.decay_horizon == "total" else self.epochs_in_cycle,
            initial_lr=self.initial_lr,
            restart_lr=self.restart_lr,
            plateau_start=self.plateau_start,
            exponent=self.exponent,
        )


def poly_then_constant_learning_rate(
    epoch: int,
    *,
    total_epochs: int,
    initial_lr: float = 1e-2,
    constant_from: float = 0.75,
    exponent: float = 0.9,
) -> float:
    """nnU-Net's polynomial decay up to ⌊constant_from·T⌋, constant from there on: the schedule of weight averaging.

    Averaging needs iterates that move around the optimum (Izmailov et al. 2018, arXiv 1803.05407); nnU-Net's own
    rate falls to 0, where the weights no longer move.

    Raises:
        ValueError: if `constant_from` is not in [0, 1).
    """
    decayed_epochs = min(epoch, plateau_first_epoch(total_epochs, constant_from))
    return initial_lr * (1 - decayed_epochs / total_epochs) ** exponent


def warm_up_cosine_learning_rate(
    epoch: int,
    *,
    total_epochs: int,
    peak_lr: float,
    warm_up_epochs: int = 10,
    final_factor: float = 1e-4,
) -> float:
    """A linear rise to the peak, then half a cosine: the schedule of the released code of arXiv 2502.09269.

    With T epochs, W of them warm-up, and the final factor f, times the peak:

        (t + 1) / W                                              for t < W
        f + (1 − f) · (1 + cos(π · (t − W) / (T − W))) / 2       for t ≥ W

    so epoch W − 1 and epoch W are at the peak, and f would be reached at epoch T, one after the last.

    Raises:
        ValueError: if the epoch is outside [0, T), or the warm-up outside [0, T).
    """
    if not 0 <= warm_up_epochs < total_epochs:
        raise ValueError(
            f"The warm-up must be at least 0 epochs and shorter than the training of {total_epochs} epochs; found "
            f"{warm_up_epochs}."
        )
    if not 0 <= epoch < total_epochs:
        raise ValueError(f"The epoch must be in 0 to {total_epochs - 1}; found {epoch}.")
    if epoch < warm_up_epochs:
        return peak_lr * (epoch + 1) / warm_up_epochs
    progress = (epoch - warm_up_epochs) / (total_epochs - warm_up_epochs)
    return peak_lr * (final_factor + (1 - final_factor) * (1 + math.cos(math.pi * progress)) / 2)


@dataclass(frozen=True)
class FineTuningPlan:
    """The stages of one fine-tuning: what trains in an epoch, and at which rate (arXiv 2410.23132, "sawtooth").

    With D epochs of decoder warm-up, N of network warm-up, T in all, h = ⌊D/2⌋ and the peak rate α:

        decoder warm-up    α · (e + 1) / h                                   for e < h
                           α · (1 − (e − h) / (D − h))^ε                     for h ≤ e < D
        network warm-up    α · (e − D + 1) / N                               for D ≤ e < D + N
        decay              α · (1 − (e − D − N) / (T − D − N))^ε             for D + N ≤ e < T

    In the decoder warm-up the encoder is frozen. Each warm-up takes a quarter of the epochs at most.

    Attributes:
        total_epochs: T.
        decoder_epochs: D, before it is limited.
        network_epochs: N, before it is limited.
        peak_lr: α.
        exponent: ε.

    Raises:
        ValueError: if there are no epochs, or a warm-up is negative.
    """

    total_epochs: int
    decoder_epochs: int = 50
    network_epochs: int = 50
    peak_lr: float = 1e-3
    exponent: float = 0.9

    def __post_init__(self) -> None:
        if self.total_epochs < 1 or min(self.decoder_epochs, self.network_epochs) < 0:
            raise ValueError(
                f"A fine-tuning needs at least one epoch, and warm-ups that are not negative; found "
                f"{self.total_epochs} epochs, warm-ups of {self.decoder_epochs} and {self.network_epochs}."
            )

    @property
    def network_start(self) -> int:
        """The first epoch of the network warm-up, D."""
        return min(self.decoder_epochs, self.total_epochs // 4)

    @property
    def decay_start(self) -> int:
        """The first epoch of the decay, D + N."""
        return self.network_start + min(self.network_epochs, self.total_epochs // 4)

    def stage_at(self, epoch: int) -> FineTuningStage:
        """The stage that an epoch, counted from 0, belongs to."""
        if epoch < self.network_start:
            return "decoder warm-up"
        return "network warm-up" if epoch < self.decay_start else "decay"

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0.

        Raises:
            ValueError: if the epoch is outside [0, T).
        """
        if not 0 <= epoch < self.total_epochs:
            raise ValueError(f"The epoch must be in 0 to {self.total_epochs - 1}; found {epoch}.")
        decoder_decay_start = self.network_start // 2
        if epoch < decoder_decay_start:
            return self._rise(epoch, 0, decoder_decay_start)
        if epoch < self.network_start:
            return self._fall(epoch, decoder_decay_start, self.network_start)
        if epoch < self.decay_start:
            return self._rise(epoch, self.network_start, self.decay_start)
        return self._fall(epoch, self.decay_start, self.total_epochs)

    def _rise(self, epoch: int, start: int, end: int) -> float:
        return self.peak_lr * (epoch - start + 1) / (end - start)

    def _fall(self, epoch: int, start: int, end: int) -> float:
        return self.peak_lr * (1 - (epoch - start) / (end - start)) ** self.exponent
