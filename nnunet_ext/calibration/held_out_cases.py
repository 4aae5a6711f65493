"""Which cases a fold's members may be judged by: those that they were not trained on."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

Split = Mapping[str, Sequence[str]]  # "train" and "val" to names of cases


class TrainedOnError(ValueError):
    """A case that members were trained on would judge them."""


def read_splits(file: Path) -> list[Split]:
    """nnU-Net's `splits_final.json`: one entry a fold.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it has another form.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"Calibration needs to know which cases each fold was trained on; {file} does not exist. Set "
            f"nnUNet_preprocessed to the folder that the training used, or give the file with --splits."
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # no JSON
        content = None
    if not isinstance(content, list) or not all(
        isinstance(fold, dict) and {"train", "val"} <= fold.keys() for fold in content
    ):
        raise ValueError(f'Splits must be a list of folds with "train" and "val"; {file} has another form.')
    return content


def held_out_cases(fold: int | str, splits: Sequence[Split], fold_folders: Iterable[Path]) -> list[str]:
    """The validation cases of a fold, by name.

    Args:
        fold: its number.
        splits: of the training.
        fold_folders: `fold_<n>` of every model of the ensemble; what is in them must agree with the splits.

    Raises:
        TrainedOnError: if the fold was trained on all cases, a validation case is a training case as well, or the
            fold's own validation folder says that the split was another one.
        ValueError: if the splits have no such fold, or it has no validation case.
    """
    if fold == "all":
        raise TrainedOnError(
            "Members must be judged by cases that they were not trained on; fold_all was trained on every case. "
            "Calibrate with numbered folds: -f 0 1 2 3 4."
        )
    number = int(fold)
    if number >= len(splits):
        raise ValueError(f"The splits have the folds 0 to {len(splits) - 1}; found fold {number}.")
    split = splits[number]
    cases = sorted(split["val"])
    if not cases:
        raise ValueError(
            f"A fold must have validation cases; fold {number} of the splits has none. Leave it out of -f."
        )
    trained = set(split["train"])
    refuse_trained(cases, trained, f"the splits count to the training of fold {number}")
    for folder in fold_folders:
        validated = cases_in(folder / "validation", trained.union(cases))
        refuse_trained(
            sorted(validated & trained),
            trained,
            f"{folder / 'validation'} holds as a validation case, though the splits now count it to the training: "
            f"the splits were changed after the training",
        )
        bootstrap = folder / "bootstrap.json"
        if bootstrap.is_file():
            drawn = set(json.loads(bootstrap.read_text(encoding="utf-8"))["training_cases"])
            refuse_trained(cases, drawn, f"{bootstrap} counts to the training")
    return cases


def cases_in(folder: Path, known: Collection[str]) -> set[str]:
    """Which of the known cases a folder holds files of; a case's name may hold dots itself."""
    found = set()
    for path in folder.glob("*"):
        parts = path.name.split(".")
        names = [".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]  # the longest first
        found |= set([name for name in names if name in known][:1])
    return found


def refuse_trained(cases: Sequence[str], trained: set[str], where: str) -> None:
    """Raises TrainedOnError if one of the cases was trained on."""
    seen = [case for case in cases if case in trained]
    if seen:
        raise TrainedOnError(
            f"Members must be judged by cases that they were not trained on; found {len(seen)}, among them "
            f"{seen[0]}, which {where}. Give the splits that the training used with --splits."
        )
