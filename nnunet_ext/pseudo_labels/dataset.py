"""The dataset of labelled and pseudo-labelled cases: description, splits, case weights, and the count of rounds."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_ext.patients import patient_of
from nnunet_ext.splits import Split

FILE_NAME = "pseudo_labels.json"  # in the raw dataset
IGNORE = "ignore"  # nnU-Net's name of the label


@dataclass(frozen=True)
class EarlierRound:
    """What the labelled dataset says of itself.

    Attributes:
        round: number of rounds so far; 0 for a dataset that people labelled.
        cases: those that have pseudo-labels.
    """

    round: int = 0
    cases: Collection[str] = field(default_factory=frozenset)


def earlier_round(folder: Path) -> EarlierRound:
    """Reads the record of a raw dataset; one without a record has no pseudo-labels.

    Raises:
        ValueError: if the record is damaged.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        return EarlierRound()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return EarlierRound(int(content["round"]), frozenset(content["cases"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{FILE_NAME} counts the rounds and names the pseudo-labelled cases; {file} cannot be read "
            f"({type(error).__name__}: {error}). Copy it again."
        ) from error


def ignore_label(labels: Mapping[str, Any]) -> int:
    """The ignore label of a dataset, or the number after its highest label, as nnU-Net demands.

    Args:
        labels: name to label, or to the labels of a region.
    """
    if IGNORE in labels:
        return int(labels[IGNORE])
    values = [value if isinstance(value, (list, tuple)) else [value] for value in labels.values()]
    return 1 + max(int(label) for group in values for label in group)


def without_ignore(labels: Mapping[str, Any]) -> dict[str, Any]:
    """The labels that a network predicts."""
    return {name: value for name, value in labels.items() if name != IGNORE}


def pseudo_dataset_json(dataset_json: Mapping[str, Any], cases: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """`dataset.json` of the new dataset: the labelled one's, with ignore label and a list of files.

    Args:
        dataset_json: that of the labelled dataset.
        cases: name to "images" and "label", as nnU-Net's `dataset` entry takes them.
    """
    labels = dataset_json["labels"]
    return {
        **dataset_json,
        "labels": {**without_ignore(labels), IGNORE: ignore_label(labels)},
        "numTraining": len(cases),
        "dataset": dict(cases),
    }


def splits_with(
    splits: Sequence[Split], labelled: Collection[str], pseudo: Iterable[str], patients: str | None
) -> list[dict[str, list[str]]]:
    """The folds of the labelled cases, with pseudo-labelled cases to train on.

    Pseudo-labels judge nothing, so folds hold out labelled cases only. A pseudo-labelled case of a patient whom a
    fold holds out is left out of that fold.

    Args:
        splits: of the labelled dataset; cases that are not labelled are left out.
        labelled: names of cases.
        pseudo: names of cases.
        patients: see `patient_of`.

    Raises:
        ValueError: if a fold trains on no labelled case or holds none out, or the pattern does not match a case.
    """
    names = sorted(pseudo)
    found = []
    for split in splits:
        training, held_out = ([case for case in split[side] if case in labelled] for side in ("train", "val"))
        if not training or not held_out:
            raise ValueError(
                "Each fold must train on labelled cases and hold out others; the splits have one without. Give those "
                "of the labelled dataset with --splits."
            )
        unseen = {patient_of(case, patients) for case in held_out}
        added = [case for case in names if patient_of(case, patients) not in unseen]
        found.append({"train": training + added, "val": held_out})
    return found


def sampling_weight(labelled: int, pseudo: int) -> float:
    """How often a pseudo-labelled case is loaded against 1 for a labelled one: together at most as often as these."""
    return min(1.0, labelled / pseudo)
