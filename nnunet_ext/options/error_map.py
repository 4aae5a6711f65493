"""Options of `error-map dataset`, `fit` and `apply`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_ext.options.choices import require_share
from nnunet_ext.options.models import ModelChoice
from nnunet_ext.options.prediction import EnsembleOptions
from nnunet_ext.patients import expression_of

HIGHEST_ID = 999


@dataclass(frozen=True)
class ErrorDatasetOptions:
    """What `error-map dataset` writes.

    Attributes:
        model: the one model whose errors are to be found.
        new_id: number of the new dataset.
        name: its name after the number; None takes that of the segmented dataset with "Errors".
        folds: folds whose held-out cases are taken; None takes all that were trained.
        members: members that predict them; None reads `fold_X/validation`, and predicts with the final checkpoint
            where it lacks a case.
        splits: file with the splits used in training; None takes `splits_final.json` in `nnUNet_preprocessed`.
        patients: pattern whose group is the patient in a case's name; None counts each case as a patient.
        corruptions: number of synthetic errors per case.
        seed: seed of the corruptions.
        device: where the networks run.
        allow_tqdm: whether to show a progress bar.

    Raises:
        ValueError: if a number is out of range, or the pattern is not a regular expression with a group.
    """

    model: ModelChoice
    new_id: int
    name: str | None = None
    folds: Sequence[int | str] | None = None
    members: str | None = None
    splits: Path | None = None
    patients: str | None = None
    corruptions: int = 2
    seed: int = 12345
    device: str | None = None
    allow_tqdm: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.new_id <= HIGHEST_ID:
            raise ValueError(f"--new-id must be 1 to {HIGHEST_ID}; found {self.new_id}.")
        if self.corruptions < 0:
            raise ValueError(f"--corruptions must be 0 or more; found {self.corruptions}.")
        if self.patients is not None:
            expression_of(self.patients)


@dataclass(frozen=True)
class ErrorFitOptions:
    """What `error-map fit` fits to an error model's cross-validation.

    Attributes:
        model: the one error model.
        ensemble: its members, and where they run.
        failure_dice: a case or a slice with a lower Dice is a failure.
        false_alarms: share of the right slices that may be flagged.

    Raises:
        ValueError: if a share is out of range.
    """

    model: ModelChoice
    ensemble: EnsembleOptions = field(default_factory=EnsembleOptions)
    failure_dice: float = 0.75
    false_alarms: float = 0.1

    def __post_init__(self) -> None:
        require_share("failure_dice", self.failure_dice, one_allowed=True)
        require_share("false_alarms", self.false_alarms, one_allowed=False)


@dataclass(frozen=True)
class ErrorApplyOptions:
    """What `error-map apply` judges.

    Attributes:
        model: folder of the error model.
        images: folder of the images.
        predictions: folder of their segmentations.
        output: folder for maps and table; None takes the predictions' own, whose `cases.csv` is then updated.
        folds: folds of the error model; None takes all that were fitted.
        device: where the networks run.
        allow_tqdm: whether to show a progress bar.
    """

    model: Path
    images: Path
    predictions: Path
    output: Path | None = None
    folds: Sequence[int | str] | None = None
    device: str | None = None
    allow_tqdm: bool = True
