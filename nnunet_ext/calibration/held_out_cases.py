"""Which cases the members of a fold may be tested on: those that they were not trained on."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from nnunet_ext.splits import Split, shared_patients

BOOTSTRAP = "bootstrap.json"  # in the folder of a fold


class TrainedOnError(ValueError):
    """Members would be tested on a case that they were trained on."""


def held_out_cases(
    fold: int | str, splits: Sequence[Split], fold_folders: Iterable[Path], patients: str | None = None
) -> list[str]:
    """The validation cases of a fold, by name.

    Args:
        fold: its number.
        splits: splits used in training.
        fold_folders: `fold_<n>` of every model of the ensemble; their content must agree with the splits.
        patients: pattern of the patients in the names, see `patient_of`; None if it is not known.

    Raises:
        TrainedOnError: if the fold was trained on all cases, a validation case is also a training case or from a
            patient with a training case, or the fold's own validation folder shows that the split was another one.
        ValueError: if the splits have no such fold, it has no validation case, or the pattern does not match a case.
    """
    if fold == "all":
        raise TrainedOnError(
            "Members must be tested on cases that they were not trained on; fold_all was trained on every case. "
            "Take numbered folds: -f 0 1 2 3 4."
        )
    number = int(fold)
    if number >= len(splits):
        raise ValueError(f"The splits have the folds 0 to {len(splits) - 1}; found fold {number}. Correct -f.")
    split = splits[number]
    cases = sorted(split["val"])
    if not cases:
        raise ValueError(
            f"A fold must have validation cases; fold {number} of the splits has none. Leave it out of -f."
        )
    trained = set(split["train"])
    refuse_trained(cases, trained, f"the splits list for training fold {number}")
    refuse_trained_patients(cases, trained, patients, f"the splits list for training fold {number}")
    for folder in fold_folders:
        validated = cases_in(folder / "validation", trained.union(cases))
        refuse_trained(
            sorted(validated & trained),
            trained,
            f"{folder / 'validation'} holds as a validation case, though the splits now list it for training: "
            f"the splits were changed after the training",
        )
        drawn = drawn_cases(folder)
        refuse_trained(cases, drawn, f"{folder / BOOTSTRAP} lists for training")
        refuse_trained_patients(cases, drawn, patients, f"{folder / BOOTSTRAP} lists for training")
    return cases


def drawn_cases(fold_folder: Path) -> set[str]:
    """The training cases that `Bagging` drew for a fold; none if it was not trained on a bootstrap sample."""
    file = fold_folder / BOOTSTRAP
    return set(json.loads(file.read_text(encoding="utf-8"))["training_cases"]) if file.is_file() else set()


def cases_in(folder: Path, known: Collection[str]) -> set[str]:
    """Which of the known cases have files in a folder; names of cases may contain dots."""
    found = set()
    for path in folder.glob("*"):
        parts = path.name.split(".")
        names = [".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]  # the longest first
        found |= set([name for name in names if name in known][:1])
    return found


def refuse_trained(cases: Sequence[str], trained: Collection[str], where: str) -> None:
    """Raises TrainedOnError if one of the cases was trained on."""
    seen = [case for case in cases if case in trained]
    if seen:
        raise TrainedOnError(
            f"Members must be tested on cases that they were not trained on; found {len(seen)}, such as "
            f"{seen[0]}, which {where}. Give the splits that the training used with --splits."
        )


def refuse_trained_patients(cases: Sequence[str], trained: Collection[str], patients: str | None, where: str) -> None:
    """Raises TrainedOnError if one of the cases is from a patient with a case that was trained on.

    Nothing is refused where the pattern of the patients is not known.
    """
    shared = shared_patients(sorted(trained), cases, patients) if patients is not None else []
    if shared:
        count = sum(len(patient.held_out) for patient in shared)
        raise TrainedOnError(
            f"Members must be tested on patients that they were not trained on; {count} of {len(cases)} validation "
            f"cases are from patients with training cases, such as {shared[0].example}, which {where}. Write splits "
            f"by patient, nnunet_ext splits -d ID --patients '{patients}' --overwrite, and train the folds with them."
        )
