"""What was fitted to an error model's cross-validation, as one JSON file in the model folder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_ext.evaluation.wrong_slices import SliceDetection, expected_dice, measured, slice_detection, slice_dice
from nnunet_ext.evaluation.wrong_slices import slice_scores as scores_of
from nnunet_ext.files.atomic import without_nan, write_json
from nnunet_ext.files.strict_json import read_strict_json
from nnunet_ext.options import TestTimeTransforms

FILE_NAME = "error_map.json"


class ErrorModelError(ValueError):
    """A fit that is missing, damaged, or of another ensemble."""


@dataclass(frozen=True)
class ValidatedCase:
    """One case of the cross-validation.

    Attributes:
        name: of the case.
        fold: that held it out.
        expected_dice: from the error map.
        dice: the true one.
        slice_scores: (D), from the error map.
        slice_dice: (D), the true ones; NaN for slices without foreground.
    """

    name: str
    fold: str
    expected_dice: float
    dice: float
    slice_scores: np.ndarray
    slice_dice: np.ndarray


def validated_case(
    name: str, fold: str, *, error: np.ndarray, truth: np.ndarray, foreground: np.ndarray, stack_axis: int
) -> ValidatedCase:
    """Compares an error map with the true errors.

    Args:
        name: of the case.
        fold: that held it out.
        error: (z, y, x), the map.
        truth: (z, y, x), boolean, where the segmentation is wrong.
        foreground: (z, y, x), boolean, of the segmentation.
        stack_axis: along which slices are stacked.
    """
    return ValidatedCase(
        name=name,
        fold=fold,
        expected_dice=expected_dice(error, foreground),
        dice=expected_dice(truth, foreground),
        slice_scores=scores_of(error, foreground, axis=stack_axis),
        slice_dice=slice_dice(truth, foreground, axis=stack_axis),
    )


@dataclass(frozen=True)
class ErrorModel:
    """The limits at which an error map speaks up.

    Attributes:
        slice_threshold: a slice with a higher score is flagged; NaN if nothing could be fitted: none is.
        failure_dice: a case with a lower expected Dice, or a slice with a lower Dice, is a failure.
        false_alarms: share of the right slices that may be flagged.
        rule: which checkpoints of each fold are members, as `--members` has it.
        tta: the test-time transforms that each member is averaged over.
        members: name and SHA-256 of each.
        figures: of the cross-validation, see `fitted`.
    """

    slice_threshold: float
    failure_dice: float
    false_alarms: float
    rule: str = "final"
    tta: TestTimeTransforms = "flips"
    members: Sequence[Sequence[str]] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        """Writes the file."""
        write_json(without_nan(asdict(self)), file)

    @classmethod
    def load(cls, folder: Path) -> ErrorModel:
        """Reads the file of a model folder.

        Raises:
            ErrorModelError: if there is none, or it holds something else.
        """
        file = folder / FILE_NAME
        if not file.is_file():
            raise ErrorModelError(
                f"An error model needs the threshold from its cross-validation; {file} does not exist. Run "
                f"nnunet_ext error-map fit -m {folder}."
            )
        try:
            content = read_strict_json(file)
            threshold = content.pop("slice_threshold")
            return cls(slice_threshold=math.nan if threshold is None else float(threshold), **content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ErrorModelError(
                f"{file} must be as nnunet_ext error-map fit wrote it; it cannot be read ({error}). Fit it again."
            ) from error

    @property
    def folds(self) -> list[str]:
        """The folds of its members."""
        return list(dict.fromkeys(name.partition("/")[0].removeprefix("fold_") for name, _ in self.members))

    def require_members(self, members: Iterable[tuple[str, str]]) -> None:
        """Refuses members that are not among the fitted ones.

        Raises:
            ErrorModelError: if one was not fitted, or was trained again since.
        """
        known = {tuple(member) for member in self.members}
        new = [name for name, sha256 in members if (name, sha256) not in known]
        if new:
            raise ErrorModelError(
                f"An error map's threshold belongs to the members it was fitted for; {new[0]} was not among them, or "
                f"was trained again since. Run nnunet_ext error-map fit again."
            )


def fitted(cases: Sequence[ValidatedCase], *, failure_dice: float, false_alarms: float) -> ErrorModel:
    """Chooses the threshold of the slices on all cases, and measures it on folds that were left out.

    Args:
        cases: of all folds, each predicted by members that never saw its patient.
        failure_dice: see `ErrorModel`.
        false_alarms: see `ErrorModel`.

    Returns:
        The limits, with figures: `slices`, the detection at the threshold; `left_out`, for each fold by the threshold
        of the others; `expected_dice`, its mean absolute error and that of the mean Dice of the other folds.

    Raises:
        ValueError: if there is no case.
    """
    if not cases:
        raise ValueError("There must be at least one case to fit an error map's threshold to; found none.")
    chosen = _detection(cases, failure_dice, false_alarms)
    folds = dict.fromkeys(case.fold for case in cases)
    left_out: dict[str, Any] = {}
    errors: list[tuple[float, float]] = []  # of the expected Dice, and of the mean of the other folds
    for fold in folds if len(folds) > 1 else ():
        own, others = ([case for case in cases if (case.fold == fold) is inside] for inside in (True, False))
        threshold = _detection(others, failure_dice, false_alarms).threshold
        left_out[fold] = asdict(measured(*_slices(own), threshold, failure_dice=failure_dice))
        usual = float(np.nanmean([case.dice for case in others]))
        errors += [
            (abs(case.expected_dice - case.dice), abs(usual - case.dice)) for case in own if not math.isnan(case.dice)
        ]
    of_map, of_mean = (float(np.mean(column)) for column in zip(*errors, strict=True)) if errors else (math.nan,) * 2
    return ErrorModel(
        slice_threshold=chosen.threshold,
        failure_dice=failure_dice,
        false_alarms=false_alarms,
        figures={
            "cases": len(cases),
            "slices": asdict(chosen),
            "left_out": left_out,
            "expected_dice": {"mean_absolute_error": of_map, "mean_absolute_error_of_mean": of_mean},
        },
    )


def _detection(cases: Sequence[ValidatedCase], failure_dice: float, false_alarms: float) -> SliceDetection:
    return slice_detection(*_slices(cases), failure_dice=failure_dice, false_alarms=false_alarms)


def _slices(cases: Sequence[ValidatedCase]) -> tuple[np.ndarray, np.ndarray]:
    """Scores and true Dice of all slices."""
    return np.concatenate([case.slice_scores for case in cases]), np.concatenate([case.slice_dice for case in cases])
