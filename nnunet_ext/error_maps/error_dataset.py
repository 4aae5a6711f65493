"""The dataset on which an error model is trained: its channels, labels, cases and splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_ext.descriptions import channels_of
from nnunet_ext.error_maps.corruptions import CORRUPTIONS
from nnunet_ext.splits import Split, case_of_two_folds

KEY = "error_map"  # in dataset.json: what the dataset was made from
SEPARATOR = "__"  # between a case and its corruption
NOT_NORMALISED = "noNorm"  # nnU-Net's name of the scheme
ERROR, IGNORED = 1, 2


class NotAnErrorModelError(ValueError):
    """A model that was not trained on a dataset of `nnunet_ext error-map dataset`."""


def one_hot(segmentation: np.ndarray, labels: Sequence[int]) -> list[np.ndarray]:
    """A mask (*spatial), uint8, of each label; one channel with all labels would be interpolated to wrong ones."""
    return [(segmentation == label).astype(np.uint8) for label in labels]


def error_labels(segmentation: np.ndarray, truth: np.ndarray, ignore_label: int | None) -> np.ndarray:
    """(*spatial), uint8: 1 where the segmentation is wrong, 2 where the truth is not known, else 0.

    In the segmentation's foreground an error is a false positive, in its background a false negative.
    """
    wrong = (segmentation != truth).astype(np.uint8)
    return wrong if ignore_label is None else np.where(truth == ignore_label, np.uint8(IGNORED), wrong)


def foreground_labels(dataset_json: Mapping[str, Any]) -> list[int]:
    """All labels that a segmentation of a dataset may have, without background and ignore label, ascending."""
    found: set[int] = set()
    for name, value in dataset_json["labels"].items():
        if name != "ignore":
            found |= {int(label) for label in (value if isinstance(value, (list, tuple)) else [value])}
    return sorted(found - {0})


def error_dataset_json(
    dataset_json: Mapping[str, Any], cases: Mapping[str, Mapping[str, Any]], made_from: Mapping[str, Any]
) -> dict[str, Any]:
    """`dataset.json` of the new dataset.

    Args:
        dataset_json: that of the segmented dataset.
        cases: name to "images" and "label", as nnU-Net's `dataset` entry takes them.
        made_from: recorded under `KEY`, besides the labels of the segmentation.
    """
    labels = foreground_labels(dataset_json)
    channels = list(channels_of(dataset_json).values())
    channels += [NOT_NORMALISED] * len(labels)
    known = {"background": 0, "error": ERROR}
    kept = {name: dataset_json[name] for name in ("overwrite_image_reader_writer",) if name in dataset_json}
    return {
        "channel_names": {str(number): channel for number, channel in enumerate(channels)},
        "labels": known | ({"ignore": IGNORED} if "ignore" in dataset_json["labels"] else {}),
        "numTraining": len(cases),
        "file_ending": dataset_json["file_ending"],
        **kept,
        KEY: {**made_from, "labels": labels},
        "dataset": dict(cases),
    }


def made_from(dataset_json: Mapping[str, Any], where: object) -> Mapping[str, Any]:
    """What an error model's dataset was made from.

    Raises:
        NotAnErrorModelError: if it is another dataset.
    """
    if KEY not in dataset_json:
        raise NotAnErrorModelError(
            f"An error model is trained on a dataset that nnunet_ext error-map dataset wrote; {where} was trained on "
            f"another one: its dataset.json has no {KEY}. Correct -m."
        )
    return dataset_json[KEY]


def corrupted_name(case: str, kind: str) -> str:
    """Name of a corruption of a case."""
    return f"{case}{SEPARATOR}{kind}"


def source_case(name: str) -> str:
    """The case that a name of the new dataset is of: itself, or the one that was corrupted."""
    case, separator, kind = name.rpartition(SEPARATOR)
    return case if separator and kind in CORRUPTIONS else name


def require_plain_names(cases: Iterable[str]) -> None:
    """Refuses cases whose names read like those of corruptions.

    Raises:
        ValueError: with the first such name.
    """
    for case in cases:
        if source_case(case) != case:
            raise ValueError(
                f"A case's name must not end like that of a corruption, {SEPARATOR} and one of "
                f"{', '.join(CORRUPTIONS)}; found {case}. Rename it in the dataset."
            )


def error_splits(held_out: Sequence[Sequence[str]], names: Iterable[str]) -> list[dict[str, list[str]]]:
    """Splits of the new dataset: each fold holds out what the same fold of the segmentation held out.

    Args:
        held_out: the segmented cases that each fold held out.
        names: all cases of the new dataset, corruptions included; they go where their case goes.

    Returns:
        "train" and "val" of each fold, sorted; cases that no fold held out are in neither.

    Raises:
        ValueError: if a case is held out by several folds, which gives it several predictions.
    """
    if shared := case_of_two_folds(dict(enumerate(held_out))):
        raise ValueError(
            f"Each case must be held out by one fold, whose prediction of it is taken; {shared[0]} is held out by "
            f"several. Choose folds with -f."
        )
    fold_of = {case: fold for fold, cases in enumerate(held_out) for case in cases}
    known = {name: fold_of[source_case(name)] for name in names if source_case(name) in fold_of}
    return [
        {
            "train": sorted(name for name, of in known.items() if of != fold),
            "val": sorted(name for name, of in known.items() if of == fold),
        }
        for fold in range(len(held_out))
    ]


def source_splits(splits: Sequence[Split]) -> list[Split]:
    """Splits of the new dataset in terms of segmented cases, so that a corruption counts as the case itself."""
    return [
        {side: sorted({source_case(name) for name in split[side]}) for side in ("train", "val")} for split in splits
    ]
