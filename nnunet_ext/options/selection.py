"""Options of `select`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from nnunet_ext.options.choices import require_choice, require_share
from nnunet_ext.options.prediction import TTA_SETS, TestTimeTransforms
from nnunet_ext.patients import expression_of

SelectedBy = Literal["entropy", "mutual_information", "tta_variance"]
UnitKind = Literal["case", "slice", "patch"]
StrategyName = Literal["top", "power", "k-centre", "random"]

SELECTED_BY: tuple[SelectedBy, ...] = get_args(SelectedBy)
UNIT_KINDS: tuple[UnitKind, ...] = get_args(UnitKind)
STRATEGY_NAMES: tuple[StrategyName, ...] = get_args(StrategyName)


@dataclass(frozen=True)
class ScoreOptions:
    """What is annotated by itself, and how its uncertainty is measured.

    Attributes:
        by: map of the prediction folder.
        unit: whole cases, slices along nnU-Net's first axis, or patches.
        patch_size: voxels of a patch along the axes of the images as nnU-Net reads them; for patches only.
        top_share: share of a unit's voxels, the most uncertain ones, whose mean is its score.

    Raises:
        ValueError: if a choice is unknown, a number out of range, or the size of patches is missing or needless.
    """

    by: SelectedBy = "entropy"
    unit: UnitKind = "case"
    patch_size: tuple[int, ...] | None = None
    top_share: float = 0.01

    def __post_init__(self) -> None:
        require_choice("--by", self.by, SELECTED_BY)
        require_choice("--unit", self.unit, UNIT_KINDS)
        require_share("--top-share", self.top_share, one_allowed=True)
        if (self.unit == "patch") != (self.patch_size is not None):
            raise ValueError(
                f"Patches need a size, and only they have one; found --unit {self.unit} and --patch-size "
                f"{self.patch_size}. Give --unit patch --patch-size Z Y X."
            )
        if self.patch_size is not None and (len(self.patch_size) != 3 or min(self.patch_size) < 1):
            raise ValueError(f"--patch-size must be three numbers of voxels, z y x; found {self.patch_size}.")


@dataclass(frozen=True)
class StrategyOptions:
    """How units are chosen.

    Attributes:
        name: of the strategy.
        number: how many units to annotate.
        stratified: with "power" and "random", share of them that is divided evenly over the predicted labels.
        beta: with "power", the larger, the less noise.
        candidates: with "k-centre", how many times as many of the most uncertain units it chooses from.
        most_per_case: how many units of one case are chosen at most; None does not limit them.
        seed: of the random numbers.

    Raises:
        ValueError: if the strategy is unknown, or a number out of range.
    """

    name: StrategyName = "power"
    number: int = 10
    stratified: float = 0.66
    beta: float = 1.0
    candidates: int = 3
    most_per_case: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice("--strategy", self.name, STRATEGY_NAMES)
        for flag, number in (
            ("--number", self.number),
            ("--candidates", self.candidates),
            ("--most-per-case", 1 if self.most_per_case is None else self.most_per_case),
        ):
            if number < 1:
                raise ValueError(f"{flag} must be 1 or more; found {number}.")
        if not 0 <= self.stratified <= 1:
            raise ValueError(f"--stratified must be 0 to 1; found {self.stratified}.")
        if not self.beta > 0:
            raise ValueError(f"--beta must be above 0; found {self.beta}.")
        if self.seed < 0:
            raise ValueError(f"--seed must be 0 or more; found {self.seed}.")


@dataclass(frozen=True)
class SelectOptions:
    """What `nnunet_ext select` does.

    Attributes:
        predictions: folder that `nnunet_ext predict` wrote for the unlabelled images, with the map.
        output: folder for the table and the page; created if missing.
        score: what is annotated, and how its uncertainty is measured.
        strategy: how units are chosen.
        already: cases that need no annotation any more, and tables of earlier selections.
        images: folder of the predicted images; None takes the recorded one.
        labelled: folder of images with labels, from which "k-centre" keeps away.
        model: model folder whose features "k-centre" compares; None takes that of the first member.
        device: "cuda", "cpu" or "mps" for the features; None takes the fastest available.
        shown: how many units the page shows; 0 writes no page.
        allow_tqdm: whether to show a progress bar.

    Raises:
        ValueError: if the page would show fewer than 0 units.
    """

    predictions: Path
    output: Path
    score: ScoreOptions = field(default_factory=ScoreOptions)
    strategy: StrategyOptions = field(default_factory=StrategyOptions)
    already: tuple[str, ...] = ()
    images: Path | None = None
    labelled: Path | None = None
    model: Path | None = None
    device: str | None = None
    shown: int = 24
    allow_tqdm: bool = True

    def __post_init__(self) -> None:
        if self.shown < 0:
            raise ValueError(f"--shown must be 0 or more; found {self.shown}.")


@dataclass(frozen=True)
class SimulateOptions:
    """What `nnunet_ext select --simulate` replays.

    Attributes:
        dataset: name or id of a labelled dataset that is planned and preprocessed.
        configuration: "2d", "3d_fullres", ...
        output: folder for predictions, table and curve; created if missing.
        plans: name of the plans.
        trainer: name of the trainer.
        fold: of the splits; its validation cases judge, its training cases are what is labelled bit by bit.
        patients: pattern whose group is the patient in a case's name; None counts each case as a patient.
        start: cases that are labelled before the first selection, in whole patients.
        rounds: number of selections.
        seeds: each starts with other cases.
        strategies: that are compared.
        strategy: all but the name and the seed, which the two above give, and beta, which grows from 1 to 100.
        score: how cases are scored.
        members: of each training, see `EnsembleOptions`.
        tta: test-time transforms of the predictions, see `EnsembleOptions`; the validation is nnU-Net's.
        device: "cuda", "cpu" or "mps"; None takes the fastest available.
        allow_tqdm: whether to show progress bars.

    Raises:
        ValueError: if a number is out of range, a strategy is unknown, or parts of cases are to be labelled.
    """

    dataset: str
    configuration: str
    output: Path
    plans: str = "nnUNetPlans"
    trainer: str = "nnUNetTrainer"
    fold: int = 0
    patients: str | None = None
    start: int = 10
    rounds: int = 3
    seeds: tuple[int, ...] = (0, 1)
    strategies: tuple[StrategyName, ...] = ("power", "random")
    strategy: StrategyOptions = field(default_factory=StrategyOptions)
    score: ScoreOptions = field(default_factory=ScoreOptions)
    members: str = "final"
    tta: TestTimeTransforms = "flips"
    device: str | None = None
    allow_tqdm: bool = True

    def __post_init__(self) -> None:
        for name in self.strategies:
            require_choice("--strategies", name, STRATEGY_NAMES)
        for flag, number in (("--start", self.start), ("--rounds", self.rounds)):
            if number < 1:
                raise ValueError(f"{flag} must be 1 or more; found {number}.")
        require_choice("--tta", self.tta, TTA_SETS)
        if not self.seeds or not self.strategies:
            raise ValueError("A simulation needs at least one of --seeds and one of --strategies; found none.")
        if self.score.unit != "case":
            raise ValueError(
                f"A simulation labels whole cases, since each training needs complete labels; found --unit "
                f"{self.score.unit}."
            )
        if self.patients is not None:
            expression_of(self.patients)

    def beta_of(self, selection: int) -> float:
        """The noise parameter of a selection, counted from 0: it grows exponentially from 1 to 100."""
        return 100.0 ** (selection / max(self.rounds - 1, 1))
