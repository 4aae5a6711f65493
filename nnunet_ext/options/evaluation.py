"""How predictions are judged, compared and shown."""

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
    """What decides on the figures of one case.

    Attributes:
        nsd_tolerance_mm: of the surface Dice.
        absent: what a structure counts that neither truth nor prediction has, in all of its figures alike:
            "leave-out" has none, "perfect" has Dice 1 and distance 0.
        end_stack: the end slices are those of the "volume", or of the truth's "foreground".

    Raises:
        ValueError: if the tolerance is not positive or a choice is unknown.
    """

    nsd_tolerance_mm: float = 1.0
    absent: AbsentRule = "leave-out"
    end_stack: EndStack = "volume"

    def __post_init__(self) -> None:
        if not self.nsd_tolerance_mm > 0:
            raise ValueError(
                f"The tolerance of the surface Dice must be above 0 mm; found {self.nsd_tolerance_mm}. Take what two "
                f"experts differ by."
            )
        require_choice("absent", self.absent, ABSENT_RULES)
        require_choice("end_stack", self.end_stack, END_STACKS)


@dataclass(frozen=True)
class JudgeOptions:
    """How a folder of predictions is compared with its truth.

    Attributes:
        metrics: of each case.
        allow_missing: whether a case that only one of the folders holds is no problem.
        processes: how many cases at a time; None takes nnU-Net's number, at most the usable cores.
        show_progress: whether to show a progress bar.
    """

    metrics: MetricOptions = field(default_factory=MetricOptions)
    allow_missing: bool = False
    processes: int | None = 1
    show_progress: bool = False


@dataclass(frozen=True)
class DatasetFiles:
    """The description of the dataset, where it is not found beside the predictions.

    Attributes:
        dataset: `dataset.json`.
        plans: `plans.json`.
    """

    dataset: Path | None = None
    plans: Path | None = None


@dataclass(frozen=True)
class EvaluationOptions:
    """What `nnunet_ext evaluate` does.

    Attributes:
        truths: folder of the true label maps.
        predictions: folders of predictions; several are the folds of one cross-validation.
        output: where the tables go; None is the folder of the predictions.
        described_by: the dataset.
        judge: how predictions are compared with the truth.
        end_variant: of the end coefficient, the one that is named first and compared; both are reported.
        end_threshold: a case counts for the end coefficient above this Dice.
        failure_dice: a case fails below it.
        other: folders of predictions of the same cases by something else.
        patients: regular expression for the patient in a case's name; None takes each case for a patient.
        groups: table of what is known about the cases.
        worst: how many of the worst cases to name.
        map_labels: "TRUTH:PREDICTION" for each label of the truth, if the truth is of a dataset with other labels.

    Raises:
        ValueError: if there are no predictions, several without an output, or a value is outside of its range.
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
            raise ValueError("An evaluation needs a folder of predictions; found none.")
        if len(self.predictions) > 1 and self.output is None:
            raise ValueError(
                f"The tables of one folder go beside its predictions; found {len(self.predictions)} folders. Say "
                f"where the tables go with -o."
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
        predictions: folder that `nnunet_ext predict` wrote.
        truths: folder of the true label maps; None shows the predictions without.
        images: folder of the images; None takes those that were predicted, if they are still there.
        page: the file; None is `report.html` beside the predictions.
        cases: how many of the worst cases get pictures.
        failure_dice: a case fails below it, unless a calibration says where.
        described_by: the dataset.
        judge: how predictions are compared with the truth.
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
        methods: name to the folders of its evaluations: trainings with other seeds, or folds. The first is the one
            that the others are compared with.
        figures: which to compare; empty takes the usual ones.
        patients: regular expression for the patient in a case's name; None takes each case for a patient.
        output: folder of the tables; None writes none.

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
                f"A comparison needs two methods or more; found {', '.join(self.methods) or 'none'}. Name an "
                f"evaluation of each."
            )
        for name, folders in self.methods.items():
            if not folders:
                raise ValueError(f"A method has an evaluation or more; {name} has none. Name its folders.")
