"""Translates labels of the truth to those of the predictions, for a test on a dataset with other labels.

The truth is translated and not the prediction: a network's probabilities, maps and regions use its own labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_ext.evaluation.label_maps import NotComparableError

LabelTranslation = Mapping[int, int]  # label of the truth to label of the predictions' dataset


def parse_translation(
    entries: Sequence[str], labels: Mapping[str, Any], truth_labels: Mapping[str, Any] | None
) -> dict[int, int]:
    """Parses the entries of `--map-labels`.

    Args:
        entries: each "TRUTH:PREDICTION", numbers or names.
        labels: labels in the predictions' `dataset.json`: name to number, or to numbers of a region.
        truth_labels: labels in the truth's `dataset.json`; None if there is none: labels of the truth are then
            numbers, and are not checked.

    Returns:
        Label of the truth to label of the prediction. 0 stays 0 unless it is named. Several labels may be merged.

    Raises:
        ValueError: if an entry is not a pair, a label is unknown, or a label of the truth is named twice.
    """
    translation = {0: 0}
    named = set()
    for entry in entries:
        source_text, separator, target_text = entry.rpartition(":")
        if not separator or not source_text or not target_text:
            raise ValueError(f'--map-labels takes entries TRUTH:PREDICTION, such as 1:3; found "{entry}".')
        source = number_of(source_text, truth_labels, "the truth")
        if source in named:
            raise ValueError(
                f"Each label of the truth matches one label of the predictions; {source_text} is named twice, the "
                f'second time in "{entry}". Leave one of them out.'
            )
        named.add(source)
        translation[source] = number_of(target_text, labels, "the predictions")
    return translation


def number_of(text: str, labels: Mapping[str, Any] | None, owner: str) -> int:
    """The number of a label that is given as a number or by its name.

    Raises:
        ValueError: if it is not one of the labels, a region of several, or a name while the labels are not known.
    """
    if labels is None:
        if not text.isdecimal():
            raise ValueError(
                f'Names of labels need the dataset.json of {owner}, in its folder or the one above; found "{text}" '
                f"and no such file. Give the number."
            )
        return int(text)
    numbers = {name: tuple(value) if isinstance(value, (list, tuple)) else (value,) for name, value in labels.items()}
    known = {0, *(number for each in numbers.values() for number in each)}
    found = numbers.get(text, (int(text),) if text.isdecimal() else ())
    if len(found) != 1 or found[0] not in known:
        raise ValueError(
            f"--map-labels must name existing labels; {owner} have "
            f"{', '.join(f'{name} ({value})' for name, value in labels.items())}, and not "
            f'"{text}" as a single label. Correct it.'
        )
    return int(found[0])


def translated(truth: np.ndarray, translation: LabelTranslation) -> np.ndarray:
    """A truth in the labels of the predictions.

    Args:
        truth: integers, any shape.
        translation: result of `parse_translation`.

    Raises:
        NotComparableError: if the truth contains a label that is not named. It is not kept as it is, since it might
            be mistaken for another structure of the same number.
    """
    found, index = np.unique(truth, return_inverse=True)
    unnamed = [label for label in found.tolist() if label not in translation]
    if unnamed:
        raise NotComparableError(
            f"--map-labels must name every label of the truth; it also contains {', '.join(map(str, unnamed))}. "
            f"Add {unnamed[0]}:LABEL, or {unnamed[0]}:0 to count it as background."
        )
    return np.array([translation[label] for label in found.tolist()], dtype=np.int32)[index].reshape(truth.shape)
