"""Options of `calibrate` and `splits`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from nnunet_ext.options.choices import require_choice, require_share
from nnunet_ext.options.models import ModelChoice
from nnunet_ext.options.prediction import EnsembleOptions
from nnunet_ext.patients import expression_of

TemperatureKind = Literal["global", "per-class"]

TEMPERATURES: tuple[TemperatureKind, ...] = get_args(TemperatureKind)
AUTOMATIC = "auto"


@dataclass(frozen=True)
class FitOptions:
    """What `calibrate` fits.

    Attributes:
        temperature: "global" for one temperature, "per-class" for one per output, or a number that is not fitted.
        confidence: column of `cases.csv`, or "auto" for the one with the lowest AURC.
        failure_dice: a case with a lower Dice is a failure.
        recall: share of the failures that the verdict must catch.
        level: coverage of the interval around the predicted Dice.
        miss_rate: miss rate of the covering mask; None takes 0.1 if there are enough patients.

    Raises:
        ValueError: if a value is out of range, before any case is predicted.
    """

    temperature: TemperatureKind | float = "global"
    confidence: str = AUTOMATIC
    failure_dice: float = 0.75
    recall: float = 0.95
    level: float = 0.9
    miss_rate: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.temperature, float | int):
            require_choice("temperature", self.temperature, TEMPERATURES)
        elif not 0 < self.temperature < math.inf:
            raise ValueError(f"A temperature must be above 0; found {self.temperature}. 1 changes nothing.")
        require_share("failure_dice", self.failure_dice, one_allowed=True)
        require_share("recall", self.recall, one_allowed=True)
        require_share("level", self.level, one_allowed=False)
        if self.miss_rate is not None:
            require_share("miss_rate", self.miss_rate, one_allowed=False)


@dataclass(frozen=True)
class CalibrateOptions:
    """What `nnunet_ext calibrate` does.

    Attributes:
        model: which models make up the ensemble.
        ensemble: how its members are combined, and where it runs.
        fit: what is fitted.
        file: where the calibration is saved; None takes `calibration.json` in the model folder.
        splits: file with the splits used in training; None takes `splits_final.json` in `nnUNet_preprocessed`.
        patients: pattern whose group is the patient in a case's name; None counts each case as a patient.
        previous_stage: folder with the segmentations of a cascade's first stage.

    Raises:
        ValueError: if the pattern is not a regular expression with a group.
    """

    model: ModelChoice
    ensemble: EnsembleOptions = field(default_factory=EnsembleOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    file: Path | None = None
    splits: Path | None = None
    patients: str | None = None
    previous_stage: Path | None = None

    def __post_init__(self) -> None:
        if self.patients is not None:
            expression_of(self.patients)


@dataclass(frozen=True)
class SplitOptions:
    """How `splits` divides the patients of a dataset into folds.

    Attributes:
        dataset: name or id.
        patients: pattern whose first group is the patient in a case's name, see `patients.patient_of`.
        folds: number of folds.
        seed: seed of the random order in which patients are assigned to folds.
        balance: FILE:COLUMN, a table of cases and the column whose values are spread evenly; None balances the
            number of cases only.
        overwrite: whether existing splits may be replaced.
        cases: adds a fold with so many training cases for each fold of the splits; None adds none.

    Raises:
        ValueError: if there are fewer than two folds or no training case, or the pattern is not a regular expression
            with a group.
    """

    dataset: str
    patients: str
    folds: int = 5
    seed: int = 12345
    balance: str | None = None
    overwrite: bool = False
    cases: int | None = None

    def __post_init__(self) -> None:
        expression_of(self.patients)
        if self.folds < 2:
            raise ValueError(f"A cross-validation needs at least 2 folds; found {self.folds}.")
        if self.cases is not None and self.cases < 1:
            raise ValueError(f"A fold needs at least 1 training case; found --cases {self.cases}.")
