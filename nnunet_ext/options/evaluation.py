"""Options of `evaluate`, `report` and `compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from nnunet_ext.options.choices import require_choice, require_share
from nnunet_ext.patients import expression_of

AbsentRule = Literal["leave-out", "perfect"]
EndVariant = Literal["paper", "strict"]
EndStack = Literal["volume", "foreground"]

ABSENT_RULES: tuple[AbsentRule, ...] = get_args(AbsentRule)
END_VARIANTS: tuple[EndVariant, ...] = get_args(EndVariant)
END_STACKS: tuple[EndStack, ...] = get_args(EndStack)


@dataclass(frozen=True)
class MetricOptions:
    """What the metrics of one case depend on.

    Attributes:
        nsd_tolerance_mm: tolerance of the surface Dice in mm.
        absent: how a structure that neither truth nor prediction has is scored, in all of its metrics:
            "leave-out" gives no value, "perfect" Dice 1 and distance 0.
        end_stack: whether end slices are those of the "volume" or of the true "foreground".

    Raises:
        ValueError: if the tolerance is not positive or a choice is unknown.
    """

    nsd_tolerance_mm: float = 1.0
    absent: AbsentRule = "leave-out"
    end_stack: EndStack = "volume"

    def __post_init__(self) -> None:
        if not self.nsd_tolerance_mm > 0:
            raise ValueError(
                f"The tolerance of the surface Dice must be above 0 mm; found {self.nsd_tolerance_mm}. Use the "
                f"distance by which two experts differ."
            )
        require_choice("absent", self.absent, ABSENT_RULES)
        require_choice("end_stack", self.end_stack, END_STACKS)


@dataclass(frozen=True)
class JudgeOptions:
    """How a folder of predictions is compared with the ground truth.

    Attributes:
        metrics: settings of the metrics.
        allow_missing: whether to allow cases that only one of the folders has.
        processes: number of cases in parallel; None takes nnU-Net's number, at most the usable cores.
        show_progress: whether to show a progress bar.
    """

    metrics: MetricOptions = field(default_factory=MetricOptions)
    allow_missing: bool = False
    processes: int | None = 1
    show_progress: bool = False


@dataclass(frozen=True)
class DatasetFiles:
    """Files that describe the dataset if they are not beside the predictions.

    Attributes:
        dataset: path of `dataset.json`.
        plans: path of `plans.json`.
    """

    dataset: Path | None = None
    plans: Path | None = None


@dataclass(frozen=True)
class EvaluationOptions:
    """What `nnunet_ext evaluate` does.

    Attributes:
        truths: folder of the ground-truth label maps.
        predictions: folders of predictions; several are the folds of one cross-validation.
        output: folder for the tables; None is the folder of the predictions.
        described_by: files that describe the dataset.
        judge: how predictions are compared with the ground truth.
        end_variant: variant of the end coefficient that is listed first and compared; both are reported.
        end_threshold: a case counts for the end coefficient if its Dice is above this.
        failure_dice: a case with a lower Dice is a failure.
        other: folders of predictions of the same cases by another method.
        patients: regular expression for the patient in a case's name; None counts each case as a patient.
        groups: table with properties of the cases, by which errors are reported.
        worst: number of worst cases to list.
        map_labels: "TRUTH:PREDICTION" for each label of the truth, if the truth is from a dataset with other labels.

    Raises:
        ValueError: if there are no predictions, several without an output, or a value is out of range.
    """

    truths: Path
    predictions: tuple[Path, ...]
    output: Path | None = None
    described_by: DatasetFiles = field(default_factory=DatasetFiles)
    judge: JudgeOptions = field(default_factory=JudgeOptions)
    end_variant: EndVariant = "paper"
    end_threshold: float = 0.8
    failure_dice: float = 0.75
    other: tuple[Path, ...] = ()
    patients: str | None = None
    groups: Path | None = None
    worst: int = 5
    map_labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.patients is not None:
            expression_of(self.patients)
        if not self.predictions:
            raise ValueError("An evaluation needs at least one folder of predictions; found none.")
        if len(self.predictions) > 1 and self.output is None:
            raise ValueError(
                f"Only the tables of a single folder go beside its predictions; found {len(self.predictions)} "
                f"folders. Give a folder for the tables with -o."
            )
        require_choice("end_variant", self.end_variant, END_VARIANTS)
        if not 0 <= self.end_threshold <= 1:
            raise ValueError(
                f"The threshold of the end coefficient must be a Dice in [0, 1]; found {self.end_threshold}. The "
                f"paper's is 0.8."
            )
        require_share("failure_dice", self.failure_dice, one_allowed=True)
        if self.worst < 0:
            raise ValueError(f"The number of worst cases must be at least 0; found {self.worst}.")


@dataclass(frozen=True)
class ReportOptions:
    """What `nnunet_ext report` does.

    Attributes:
        predictions: folder written by `nnunet_ext predict`.
        truths: folder of the ground-truth label maps; None shows the predictions alone.
        images: folder of the images; None takes those that were predicted, if they still exist.
        page: the HTML file; None is `report.html` beside the predictions.
        cases: number of worst cases that are shown with images.
        failure_dice: a case with a lower Dice is a failure; a calibration's own value takes precedence.
        described_by: files that describe the dataset.
        judge: how predictions are compared with the ground truth.
    """

    predictions: Path
    truths: Path | None = None
    images: Path | None = None
    page: Path | None = None
    cases: int = 12
    failure_dice: float = 0.75
    described_by: DatasetFiles = field(default_factory=DatasetFiles)
    judge: JudgeOptions = field(default_factory=JudgeOptions)


@dataclass(frozen=True)
class CompareOptions:
    """What `nnunet_ext compare` does.

    Attributes:
        methods: name to the folders of its evaluations, such as seeds or folds. The others are compared with the
            first one.
        figures: what to compare; empty takes the usual figures.
        patients: regular expression for the patient in a case's name; None counts each case as a patient.
        output: folder for the tables; None writes none.

    Raises:
        ValueError: if there are fewer than two methods, or one without an evaluation.
    """

    methods: Mapping[str, Sequence[Path]]
    figures: tuple[str, ...] = ()
    patients: str | None = None
    output: Path | None = None

    def __post_init__(self) -> None:
        if self.patients is not None:
            expression_of(self.patients)
        if len(self.methods) < 2:
            raise ValueError(
                f"A comparison needs two methods or more; found {', '.join(self.methods) or 'none'}. Give an "
                f"evaluation of each."
            )
        for name, folders in self.methods.items():
            if not folders:
                raise ValueError(f"A method needs at least one evaluation; {name} has none. Give its folders.")
