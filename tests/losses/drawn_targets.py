"""Small targets drawn by hand, predictions of them, and a second opinion in NumPy, shared by the tests of losses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor


def drawn(*rows: str) -> Tensor:
    """A picture of labels, one digit a voxel and "." for 0: (1, 1, H, W). One row is a line: (1, 1, W)."""
    labels = torch.tensor([[int(sign.replace(".", "0")) for sign in row] for row in rows])
    return (labels[0] if len(rows) == 1 else labels)[None, None]


def mask(*rows: str) -> np.ndarray:
    """The same of zeros and ones as a boolean array, (H, W) or (W)."""
    return drawn(*rows)[0, 0].numpy() > 0


def certain(labels: Tensor, classes: int, margin: float = 200.0) -> Tensor:
    """Logits (B, C, *spatial) whose softmax is 1 for the labels (B, 1, *spatial), and 0 for all others."""
    return margin * torch.nn.functional.one_hot(labels[:, 0], classes).movedim(-1, 1).float()


def logit(p: float) -> float:
    """What the sigmoid makes p of; with a background of 0 the softmax does as well."""
    return float(np.log(p / (1 - p)))


def value_of(term: Callable[..., Tensor], logits: Tensor, target: Tensor, **extras: Tensor) -> Tensor:
    """A loss term as it is called in the first epoch; blanks in names of extras are underscores here."""
    named = {name.replace("_", " "): extra for name, extra in extras.items()}
    return term(logits, target, epoch=torch.tensor(0), extras=named)


def random_labels(shape: tuple[int, ...], classes: int = 3, batch: int = 2, seed: int = 0) -> Tensor:
    """Labels (B, 1, *spatial) of small blobs; every patch has all classes."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        labels = torch.randint(classes, (batch, 1, *[-(-length // 2) for length in shape]), generator=generator)
        if all(len(patch.unique()) == classes for patch in labels):
            break
    for axis, length in enumerate(shape, start=2):
        labels = labels.repeat_interleave(2, dim=axis).narrow(axis, 0, length)
    return labels


def random_logits(labels: Tensor, classes: int = 3, seed: int = 0) -> Tensor:
    """Logits that are right, wrong and undecided by chance."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn((labels.shape[0], classes, *labels.shape[2:]), generator=generator)


# --- in float64, by NumPy ---


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def foreground(logits: np.ndarray, labels: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """p and g, (*spatial) each, of every foreground class of every patch."""
    p, classes = softmax(logits), range(1, logits.shape[1])
    return [(p[n, c], (labels[n, 0] == c).numpy().astype(float)) for n in range(len(p)) for c in classes]


def slope(function: Callable[[np.ndarray], float], at: np.ndarray, index: tuple[int, ...]) -> float:
    """The derivative by one of the numbers, as a central difference."""
    step = np.zeros_like(at)
    step[index] = 1e-6
    return (function(at + step) - function(at - step)) / 2e-6


def require_agreement(
    loss: Callable[[Tensor], Tensor], definition: Callable[[np.ndarray], float], logits: Tensor
) -> None:
    """The loss has the value and, for 40 of the logits, the slope of its definition, which gets them as float64."""
    given, exact = logits.clone().requires_grad_(), logits.double().numpy()
    value = loss(given)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(definition(exact), rel=1e-5)
    largest = given.grad.abs().max().item()
    chosen = np.random.default_rng(0).permutation(list(np.ndindex(exact.shape)))[:40]
    slopes = [slope(definition, exact, tuple(index)) for index in chosen]
    found = [given.grad[tuple(index)].item() for index in chosen]
    assert np.abs(slopes).max() > 0.05 * largest
    np.testing.assert_allclose(found, slopes, rtol=1e-3, atol=1e-4 * largest)
