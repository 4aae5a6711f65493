"""How an ensemble is put together, what it writes, and what is recorded of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from nnunet_ext.options.choices import require_choice
from nnunet_ext.options.models import ModelChoice

Average = Literal["probabilities", "logits"]
EarlyExit = Literal["label", "information"]
MapName = Literal["entropy", "mutual_information", "expected_entropy", "variance", "confidence"]
MapType = Literal["float32", "float16", "uint8"]
Precision = Literal["fp32", "bf16", "auto"]

AVERAGES: tuple[Average, ...] = get_args(Average)
EARLY_EXITS: tuple[EarlyExit, ...] = get_args(EarlyExit)
MAP_NAMES: tuple[MapName, ...] = get_args(MapName)
MAP_TYPES: tuple[MapType, ...] = get_args(MapType)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DEVICES = ("cuda", "mps", "cpu")


@dataclass(frozen=True)
class EnsembleOptions:
    """How an ensemble is put together and where it runs.

    Attributes:
        folds: of every model folder, one or several; None takes those that have members.
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

    folds: Sequence[int | str] | int | str | None = None
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

    @property
    def fold_list(self) -> list[int | str] | None:
        """The folds as a list, also of a single one; None takes those that have members."""
        if self.folds is None:
            return None
        return [self.folds] if isinstance(self.folds, (int, str)) else list(self.folds)

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


# Names under which `predict_args.json` has options whose flags are stock's.
RECORDED_AS = {"images": "i", "results": "o", "calibration": "calibrated"}


def recorded(options: PredictOptions) -> dict[str, Any]:
    """The options as they go into `predict_args.json`: one level, under the names that users know."""
    content = asdict(options)
    for group in ("model", "ensemble", "output"):
        content |= content.pop(group)
    return {RECORDED_AS.get(name, name): value for name, value in content.items()}
