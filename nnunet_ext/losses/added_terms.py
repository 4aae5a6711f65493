"""Terms that are added to a loss, each with a weight that depends on the epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nnunet_ext.losses.case_weighted import CaseWeighting
from nnunet_ext.losses.ramps import NOTHING_YET, Means, Ramp, require_weight

ExtraOfTarget = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ExtraOfCase:
    """An extra target that is not computed from the target: loaded with the case, and augmented like its image.

    Attributes:
        key: its key among what nnU-Net's transforms get; a part of the trainer puts it there.
    """

    key: str


Extra = ExtraOfTarget | ExtraOfCase


class LossTerm(Protocol):
    """A loss of one output. It is called in fp32 outside autocast, and only if its weight is not 0.

    A measured term is called whatever its weight is.
    """

    def __call__(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """The value of the term, a scalar.

        Args:
            logits: (B, C, *spatial), the network's output at full resolution.
            target: nnU-Net's target at full resolution, see `targets.without_ignored`.
            epoch: index of the epoch, as a zero-dimensional tensor, so that a compiled loss need not be recompiled.
            extras: extra targets of the loader by name, (B, channels, *spatial).
        """
        ...


@dataclass(frozen=True)
class AddedTerm:
    """A term of the loss with its weight.

    Attributes:
        name: the term's name in the log.
        term: a function or a module.
        ramp: returns the weight, given the epoch, the number of epochs and the terms' means in the epochs before.
        extras: extra targets that the loader computes, by name. Each function maps the augmented target of one patch
            at full resolution, (channels, *spatial), to (any number, *spatial). It runs in the loader's processes,
            so it must be picklable. Terms that use the same name share the result. Or an `ExtraOfCase`.
        replaces_base: whether the weight w is taken from the base loss, (1 - w) L + w term, instead of L + w term.
        measured: whether the term is computed, without a gradient, even if its weight is 0, for ramps that compare
            terms.
        by_case: whether each sample of the batch counts by its case's weight, where cases have weights. A term of
            other images than the batch's sets False, and so does one that is a `CaseWeighting` itself.
    """

    name: str
    term: LossTerm
    ramp: Ramp
    extras: Mapping[str, Extra] = field(default_factory=dict)
    replaces_base: bool = False
    measured: bool = False
    by_case: bool = True


class LossWithTerms(CaseWeighting):
    """A loss L plus terms of the output at full resolution: (1 - sum of w_i that replace) L + sum_i w_i term_i.

    The weights are stored in a tensor, so that a compiled loss need not be recompiled when they change. A term with
    weight 0 is not computed unless it is measured; without active terms the loss is L itself.

    Args:
        base: the loss L of the network's output and nnU-Net's target, with or without deep supervision.
        terms: the added terms, with unique names.

    Raises:
        ValueError: if two terms have the same name.
    """

    weights: Tensor
    values: Tensor
    base_weight: Tensor
    epoch: Tensor

    def __init__(self, base: nn.Module, terms: Sequence[AddedTerm]) -> None:
        super().__init__()
        names = [added.name for added in terms]
        if len(set(names)) < len(names):
            raise ValueError(f"Loss terms must have unique names; found {', '.join(names)}. Rename one of them.")
        self.base = base
        self.terms = tuple(terms)
        self.modules_of_terms = nn.ModuleList(added.term for added in terms if isinstance(added.term, nn.Module))
        self.active = (False,) * len(terms)  # Python values, because they decide which terms are computed
        self.extras: dict[str, Tensor] = {}
        self.register_buffer("weights", torch.zeros(len(terms)), persistent=False)
        self.register_buffer("values", torch.full((len(terms),), torch.nan), persistent=False)
        self.register_buffer("base_weight", torch.ones(()), persistent=False)
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64), persistent=False)

    def set_epoch(self, epoch: int, total_epochs: int, means: Means = NOTHING_YET) -> None:
        """Sets the weights of all terms for an epoch.

        Args:
            epoch: its index.
            total_epochs: of the training.
            means: of the terms in each epoch before, by name.

        Raises:
            ValueError: if a weight is negative or not finite, or the weights that replace the loss sum to over 1.
        """
        weights = [added.ramp(epoch, total_epochs, means) for added in self.terms]
        for weight in weights:
            require_weight(weight)
        replaced = sum(weight for weight, added in zip(weights, self.terms, strict=True) if added.replaces_base)
        if replaced > 1:
            raise ValueError(
                f"The weights of terms that replace the loss must sum to at most 1; found {replaced}. Lower their "
                f"ramps."
            )
        self.weights.copy_(torch.tensor(weights))
        self.base_weight.fill_(1 - replaced)
        self.epoch.fill_(epoch)
        self.values.fill_(torch.nan)
        self.active = tuple(weight > 0 for weight in weights)

    def forward(self, output: Any, target: Any) -> Tensor:
        """The loss, a scalar.

        Args:
            output: logits (B, C, *spatial), or a list of them with deep supervision, the finest first.
            target: nnU-Net's target, or a list of targets with deep supervision.
        """
        loss = self.base(output, target)
        if any(added.replaces_base for added in self.terms):
            loss = self.base_weight * loss
        logits, truth = finest(output).float(), finest(target)
        for position, added in enumerate(self.terms):
            if not (self.active[position] or added.measured):
                continue
            gradient = nullcontext() if self.active[position] else torch.no_grad()
            with without_autocast(logits.device.type), gradient:
                value = self.value_of(added, logits, truth)
            self.values[position] = value.detach()
            if self.active[position]:
                loss = loss + self.weights[position] * value
        return loss

    def value_of(self, added: AddedTerm, logits: Tensor, target: Tensor) -> Tensor:
        """The value of a term, with its samples weighted by their cases' weights."""

        def value(logits: Tensor, target: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
            return added.term(logits, target, epoch=self.epoch, extras=extras)

        if not added.by_case:
            return value(logits, target, self.extras)
        return self.by_case(value, logits, target, self.extras)

    @property
    def extras_of_target(self) -> dict[str, Extra]:
        """The extra targets that the loader adds for all terms, by name.

        Raises:
            ValueError: if two terms use the same name for different functions.
        """
        functions: dict[str, Extra] = {}
        for added in self.terms:
            for name, function in added.extras.items():
                if functions.setdefault(name, function) is not function:
                    raise ValueError(
                        f"Loss terms that share an extra target must use the same function; found two functions "
                        f"named {name!r}, one of them of {added.name}. Rename one of them."
                    )
        return functions


def finest(levels: Any) -> Tensor:
    """The first tensor of a list with deep supervision, or the tensor itself without."""
    return levels[0] if isinstance(levels, (list, tuple)) else levels


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Disables autocast; does nothing if it is already off, because disabling it fails on mps."""
    return torch.autocast(device_type, enabled=False) if torch.is_autocast_enabled(device_type) else nullcontext()
