"""The options of every command as frozen objects: defaults, choices and validation, each said once.

The command line turns its flags into one of these, `commands/` takes it, and so do notebooks. Neither torch
nor nnU-Net is imported, so that help texts and parsers can read the choices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

Average = Literal["probabilities", "logits"]
EarlyExit = Literal["label", "information"]
MapName = Literal["entropy", "mutual_information", "expected_entropy", "variance", "confidence"]
MapType = Literal["float32", "float16", "uint8"]
Precision = Literal["fp32", "bf16", "auto"]
TemperatureKind = Literal["global", "per-class"]

AVERAGES: tuple[Average, ...] = get_args(Average)
EARLY_EXITS: tuple[EarlyExit, ...] = get_args(EarlyExit)
MAP_NAMES: tuple[MapName, ...] = get_args(MapName)
MAP_TYPES: tuple[MapType, ...] = get_args(MapType)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
TEMPERATURES: tuple[TemperatureKind, ...] = get_args(TemperatureKind)
DEVICES = ("cuda", "cpu", "mps")
AUTOMATIC = "auto"


def require_choice(what: str, value: object, choices: Sequence[object]) -> None:
    """Refuses a value that is not one of the choices.

    Raises:
        ValueError: with the choices and the value found.
    """
    if value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(map(str, choices))}; found {value!r}.")


def require_share(what: str, value: float, *, one_allowed: bool) -> None:
    """Refuses a number that is not above 0 and below 1, or at most 1.

    Raises:
        ValueError: with the range and the value found.
    """
    if not (0 < value < 1 or (one_allowed and value == 1)):
        bound = "at most 1" if one_allowed else "below 1"
        raise ValueError(f"{what} must be above 0 and {bound}; found {value}.")


@dataclass(frozen=True)
class ModelChoice:
    """Which trained models a command works on: folders, or a dataset with trainer, plans and configuration.

    Attributes:
        folders: `TRAINER__PLANS__CONFIGURATION` folders.
        dataset: name or id, looked up in `nnUNet_results`.
        trainer: name of the trainer.
        plans: name of the plans.
        configuration: "2d", "3d_fullres", ...

    Raises:
        ValueError: if folders and a dataset are both given, or neither, or a dataset without its configuration.
    """

    folders: tuple[Path, ...] = ()
    dataset: str | None = None
    trainer: str = "nnUNetTrainer"
    plans: str = "nnUNetPlans"
    configuration: str | None = None

    def __post_init__(self) -> None:
        by_dataset = self.dataset is not None or self.configuration is not None
        incomplete = by_dataset and None in (self.dataset, self.configuration)
        if bool(self.folders) == by_dataset or incomplete:
            raise ValueError(
                f"The model is named either by -m FOLDER or by -d DATASET and -c CONFIGURATION (with -tr and -p); "
                f"found -m {list(map(str, self.folders))}, -d {self.dataset}, -c {self.configuration}. Give one of "
                f"the two."
            )


@dataclass(frozen=True)
class EnsembleOptions:
    """How an ensemble is put together and where it runs.

    Attributes:
        folds: of every model folder; None takes those that have members.
        members: "final", "best", "samples", "last-cycle" or a file pattern, each with an optional :COUNT, or
            "mc-dropout" with an optional :COUNT.
        device: "cuda", "cpu", "mps" or a device of torch's; None takes the fastest that is there.
        average: "probabilities" is the Bayesian model average; "logits" is what stock nnU-Net does over folds. It
            decides on segmentation and probabilities; maps always describe the members' probabilities.
        model_weights: one positive number per model folder, shared evenly by its members; None gives every member the
            same weight.
        tta_members: whether every test-time transform counts as a member of its own.
        trust_checkpoints: whether checkpoints may hold more than data, which can run code.
        tile_step_size: distance of tiles as a share of the patch.
        use_gaussian: whether the centre of a tile weighs more than its border.
        use_mirroring: whether predictions are averaged over mirrored copies.
        precision: "fp32", "bf16", or "auto", which takes bf16 where a CPU has units for it; None is stock's.
        early_exit: "label" leaves out members where they cannot change the label any more; "information" where the
            mutual information has settled; None runs all members everywhere.
        fast_resampling: whether the softmax is taken at the network's resolution and probabilities are resampled;
            stock resamples logits. Faster where images are resampled, with another entropy at borders.
        allow_tqdm: whether to show a progress bar.

    Raises:
        ValueError: if a choice is unknown, the step is not in (0, 1], or early exit or fast resampling is asked for
            with averaged logits.
    """

    folds: Sequence[int | str] | None = None
    members: str = "final"
    device: Any = None
    average: Average = "probabilities"
    model_weights: Sequence[float] | None = None
    tta_members: bool = False
    trust_checkpoints: bool = False
    tile_step_size: float = 0.5
    use_gaussian: bool = True
    use_mirroring: bool = True
    precision: Precision | None = None
    early_exit: EarlyExit | None = None
    fast_resampling: bool = False
    allow_tqdm: bool = True

    def __post_init__(self) -> None:
        require_choice("average", self.average, AVERAGES)
        require_choice("precision", self.precision, (None, *PRECISIONS))
        require_choice("early_exit", self.early_exit, (None, *EARLY_EXITS))
        if not 0 < self.tile_step_size <= 1:
            raise ValueError(
                f"The step of the tiles must be above 0 and at most 1 patch; found {self.tile_step_size}."
            )
        if self.early_exit and self.average == "logits":
            raise ValueError(
                "Early exit goes by the mean of probabilities; found it with averaged logits. Leave out "
                "--early-exit or --average logits."
            )
        if self.fast_resampling and self.average == "logits":
            raise ValueError(
                "Fast resampling takes the softmax before members meet; found it with averaged logits. Leave out "
                "--fast-resampling or --average logits."
            )


@dataclass(frozen=True)
class OutputOptions:
    """What is written for each case, and how a run divides its work.

    Attributes:
        maps: names of the uncertainty maps.
        map_type: of the files of the maps.
        save_probabilities: whether to write `CASE.npz` and `CASE.pkl` as stock does.
        save_members: whether to write each member's own segmentation.
        continue_prediction: whether to skip cases whose files are complete.
        previous_stage: folder with the segmentations of a cascade's first stage.
        num_parts: into how many runs the cases are divided.
        part_id: which of them this is, from 0.
        prepare_ahead: whether the next case is preprocessed while one is predicted.
        write_behind: whether a case is written while the next one is predicted.

    Raises:
        ValueError: if a map or its type is unknown, or the part does not exist.
    """

    maps: Sequence[str] = ("entropy",)
    map_type: MapType = "float32"
    save_probabilities: bool = False
    save_members: bool = False
    continue_prediction: bool = False
    previous_stage: Path | None = None
    num_parts: int = 1
    part_id: int = 0
    prepare_ahead: bool = True
    write_behind: bool = True

    def __post_init__(self) -> None:
        unknown = sorted(set(self.maps) - set(MAP_NAMES))
        if unknown:
            raise ValueError(f"Maps must be of {', '.join(MAP_NAMES)}; found {', '.join(unknown)}.")
        require_choice("The type of the maps", self.map_type, MAP_TYPES)
        if not 0 <= self.part_id < self.num_parts:
            raise ValueError(
                f"Parts count from 0 to num_parts - 1; found part {self.part_id} of {self.num_parts}. With 3 parts "
                f"use 0, 1 and 2."
            )


@dataclass(frozen=True)
class FitOptions:
    """What `calibrate` fits.

    Attributes:
        temperature: "global" for one temperature, "per-class" for one for each output.
        confidence: column of `cases.csv`, or "auto" for the one with the smallest AURC.
        failure_dice: a case fails below it.
        recall: share of the failures that the verdict is to catch.
        level: of the interval around the predicted Dice.
        miss_rate: of the covering mask; None takes 0.1 if there are patients enough.

    Raises:
        ValueError: if a value is outside of its range; at once, not after hours of prediction.
    """

    temperature: TemperatureKind = "global"
    confidence: str = AUTOMATIC
    failure_dice: float = 0.75
    recall: float = 0.95
    level: float = 0.9
    miss_rate: float | None = None

    def __post_init__(self) -> None:
        require_choice("temperature", self.temperature, TEMPERATURES)
        require_share("failure_dice", self.failure_dice, one_allowed=True)
        require_share("recall", self.recall, one_allowed=True)
        require_share("level", self.level, one_allowed=False)
        if self.miss_rate is not None:
            require_share("miss_rate", self.miss_rate, one_allowed=False)


@dataclass(frozen=True)
class PredictOptions:
    """What `nnunet_ext predict` does.

    Attributes:
        images: folder of the images.
        results: folder of the results.
        model: which models make up the ensemble.
        ensemble: how.
        output: what is written.
        calibration: file that `calibrate` wrote; True takes `calibration.json` in the model folder; None predicts
            without.
    """

    images: Path
    results: Path
    model: ModelChoice
    ensemble: EnsembleOptions = field(default_factory=EnsembleOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    calibration: Path | Literal[True] | None = None


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
        if len(self.methods) < 2:
            raise ValueError(
                f"A comparison needs two methods or more; found {', '.join(self.methods) or 'none'}. Name an "
                f"evaluation of each."
            )
        for name, folders in self.methods.items():
            if not folders:
                raise ValueError(f"A method has an evaluation or more; {name} has none. Name its folders.")
