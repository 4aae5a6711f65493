"""Several prediction folders as the folds of one cross-validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from nnunet_ext.evaluation.results import FolderEvaluation
from nnunet_ext.evaluation.summary import means_of, standard_deviation
from nnunet_ext.splits import case_of_two_folds


def fold_names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: `fold_0` of `MODEL/fold_0/validation`, otherwise its own; full paths if two agree.

    Raises:
        ValueError: if a folder is given twice.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(
            f"Each fold may be given once; found {', '.join(map(str, folders))}. Leave out the repeated ones."
        )
    names = [
        folder.parent.name if is_validation(folder) else folder.name
        for folder in (folder.absolute() for folder in folders)
    ]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def fold_of_cases(cases_of_fold: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Case to fold.

    Args:
        cases_of_fold: fold to the names of its cases.

    Raises:
        ValueError: if a case is in two folds.
    """
    if shared := case_of_two_folds(cases_of_fold):
        case, first, second = shared
        raise ValueError(
            f"Each case of a cross-validation must be in one fold; {case} is in {first} and in {second}. Give the "
            f"folds of one model; compare runs on the same cases with nnunet_ext compare."
        )
    return {case: fold for fold, cases in cases_of_fold.items() for case in cases}


def by_fold(evaluation: FolderEvaluation) -> dict[str, FolderEvaluation]:
    """Fold to the evaluation of its cases; empty if there are no folds."""
    names = dict.fromkeys(case.fold for case in evaluation.cases if case.fold)
    return {
        name: FolderEvaluation(evaluation.structures, [case for case in evaluation.cases if case.fold == name])
        for name in names
    }


def fold_summary(evaluation: FolderEvaluation, *, end_threshold: float) -> dict[str, Any]:
    """Means of each fold, and the spread of these means.

    Args:
        evaluation: evaluation of all folds.
        end_threshold: threshold of the end coefficient.

    Returns:
        `folds`, name to number of cases and means, and `over_folds` in the same form with `mean`, `std` (sample
        standard deviation) and the number of `folds` that define it in place of each mean. Empty for a single fold.
    """
    means = {name: means_of(part, end_threshold=end_threshold) for name, part in by_fold(evaluation).items()}
    if len(means) < 2:
        return {}
    figures = [{key: value for key, value in found.items() if key != "cases"} for found in means.values()]
    return {"folds": means, "over_folds": spread_of(figures)}


def spread_of(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The same nested names with the spread of each value over the folds; NaN is left out."""
    names = dict.fromkeys(name for fold in folds for name in fold)
    result: dict[str, Any] = {}
    for name in names:
        values = [fold[name] for fold in folds if name in fold]
        if isinstance(values[0], Mapping):
            result[name] = spread_of(values)
        else:
            defined = [float(value) for value in values if not math.isnan(value)]
            result[name] = {
                "mean": fmean(defined) if defined else math.nan,
                "std": standard_deviation(defined),
                "folds": len(defined),
            }
    return result


def is_validation(folder: Path) -> bool:
    """Whether a folder is `fold_X/validation`, where nnU-Net writes the predictions of one fold's cases."""
    folder = folder.resolve()
    return folder.name == "validation" and folder.parent.name.startswith("fold_")
