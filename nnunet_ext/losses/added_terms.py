"""Terms that are added to a loss, each with a weight that the epoch decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nnunet_ext.losses.ramps import NOTHING_YET, Means, Ramp, require_weight

ExtraOfTarget = Callable[[Tensor], Tensor]


class LossTerm(Protocol):
    """A function of one output. It is called in fp32 outside of autocast, and only where its weight is not 0.

    A term that is measured is called whatever its weight is.
    """

    def __call__(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """A scalar.

        Args:
            logits: (B, C, *spatial), the network's output at full resolution.
            target: nnU-Net's at full resolution, see `targets.without_ignored`.
            epoch: the index of the epoch, a tensor without axes, so that a compiled loss stays valid.
            extras: by name, what the loader computed from the target, (B, channels, *spatial).
        """
        ...


@dataclass(frozen=True)
class AddedTerm:
    """A term of the loss with its weight.

    Attributes:
        name: what the log calls it.
        term: a function or a module.
        ramp: (epoch, total epochs, means of the epoch before) to the weight.
        extras: what the loader has to compute, by name: each a function of the target of one patch after augmentation
            and at full resolution, (channels, *spatial), to (any number, *spatial). It runs in the loader's
            processes, so it must pickle. Terms that use the same name share what it gives.
        replaces_base: the weight w is taken from the rest of the loss, (1 - w) L + w term, instead of added to it.
        measured: it is computed, without a gradient, where its weight is 0 as well, for ramps that compare terms.
    """

    name: str
    term: LossTerm
    ramp: Ramp
    extras: Mapping[str, ExtraOfTarget] = field(default_factory=dict)
    replaces_base: bool = False
    measured: bool = False


class LossWithTerms(nn.Module):
    """A loss L plus terms of the output at full resolution: (1 - sum of w_i that replace) L + sum_i w_i term_i.

    Weights lie in a tensor, so that a loss that was compiled sees new ones without being compiled again. A term whose
    weight is 0 is not computed unless it is measured, and without any the loss is L itself.

    Args:
        base: called with what the network returns and nnU-Net's target, with or without deep supervision.
        terms: with names that differ.

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
            raise ValueError(f"Terms of a loss must have names that differ; found {', '.join(names)}.")
        self.base = base
        self.terms = tuple(terms)
        self.modules_of_terms = nn.ModuleList(added.term for added in terms if isinstance(added.term, nn.Module))
        self.active = (False,) * len(terms)  # as Python values: they decide what is computed
        self.extras: dict[str, Tensor] = {}
        self.register_buffer("weights", torch.zeros(len(terms)), persistent=False)
        self.register_buffer("values", torch.full((len(terms),), torch.nan), persistent=False)
        self.register_buffer("base_weight", torch.ones(()), persistent=False)
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64), persistent=False)

    def set_epoch(self, epoch: int, total_epochs: int, means: Means = NOTHING_YET) -> None:
        """Gives every term the weight of an epoch.

        Args:
            epoch: its index.
            total_epochs: of the training.
            means: of the terms in the epoch before, by name.

        Raises:
            ValueError: if a ramp gives a weight that no term can have, or those that replace the loss exceed 1.
        """
        weights = [added.ramp(epoch, total_epochs, means) for added in self.terms]
        for weight in weights:
            require_weight(weight)
        replaced = sum(weight for weight, added in zip(weights, self.terms, strict=True) if added.replaces_base)
        if replaced > 1:
            raise ValueError(
                f"Terms that replace the loss may have a weight of at most 1 together; found {replaced}."
            )
        self.weights.copy_(torch.tensor(weights))
        self.base_weight.fill_(1 - replaced)
        self.epoch.fill_(epoch)
        self.values.fill_(torch.nan)
        self.active = tuple(weight > 0 for weight in weights)

    def forward(self, output: Any, target: Any) -> Tensor:
        """A scalar.

        Args:
            output: logits (B, C, *spatial), or a list of them with the finest first.
            target: nnU-Net's, or a list of them.
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
                value = added.term(logits, truth, epoch=self.epoch, extras=self.extras)
            self.values[position] = value.detach()
            if self.active[position]:
                loss = loss + self.weights[position] * value
        return loss

    @property
    def extras_of_target(self) -> dict[str, ExtraOfTarget]:
        """What the loader has to compute for all terms together, by name.

        Raises:
            ValueError: if two terms mean different things by the same name.
        """
        functions: dict[str, ExtraOfTarget] = {}
        for added in self.terms:
            for name, function in added.extras.items():
                if functions.setdefault(name, function) is not function:
                    raise ValueError(
                        f"What loss terms share must be the same function; found two of the name {name!r}, one of "
                        f"them of {added.name}. Give one another name."
                    )
        return functions


def finest(levels: Any) -> Tensor:
    """The first of a list of deep supervision, or the tensor itself."""
    return levels[0] if isinstance(levels, (list, tuple)) else levels


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Computes in the tensors' own precision; changes nothing where autocast is off (mps objects to being told)."""
    return torch.autocast(device_type, enabled=False) if torch.is_autocast_enabled(device_type) else nullcontext()
