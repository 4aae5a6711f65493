"""Label maps drawn as text, and probabilities that go with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunet_ext.postprocessing.step import SegmentedCase


def label_map(*rows: str) -> np.ndarray:
    """(1, y, x) labels: a digit is a label, a dot is background. An empty row begins the next slice."""
    slices: list[list[list[int]]] = [[]]
    for row in rows:
        if row:
            slices[-1].append([0 if character == "." else int(character) for character in row])
        else:
            slices.append([])
    return np.array(slices, dtype=np.uint8)


def drawing(labels: np.ndarray) -> list[str]:
    """The rows that `label_map` takes."""
    rows: list[str] = []
    for number, one in enumerate(labels):
        rows += [""] if number else []
        rows += ["".join("." if label == 0 else str(label) for label in row) for row in one]
    return rows


def case(
    *rows: str, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0), probabilities: np.ndarray | None = None
) -> SegmentedCase:
    """A segmented case from a drawing."""
    return SegmentedCase(label_map(*rows), spacing_mm, probabilities)


def tenths(*rows: str) -> np.ndarray:
    """(1, y, x) probabilities: each digit counts tenths, a dot is 0."""
    return label_map(*rows) / 10
