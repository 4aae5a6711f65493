"""Options of `predict`: how an ensemble is put together, what it writes, and what is recorded about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from nnunet_ext.options.adaptation import AdaptOptions
from nnunet_ext.options.choices import require_choice
from nnunet_ext.options.cluster import ClusterOptions
from nnunet_ext.options.models import ModelChoice

Average = Literal["probabilities", "logits"]
EarlyExit = Literal["label", "information"]
MapName = Literal[
    "entropy", "mutual_information", "expected_entropy", "variance", "confidence", "tta_variance", "memory"
]
MapType = Literal["float32", "float16", "uint8"]
Precision = Literal["fp32", "bf16", "auto"]
RuntimeName = Literal["torch", "openvino", "auto"]
TestTimeTransforms = Literal["flips", "rot90", "full", "none"]

AVERAGES: tuple[Average, ...] = get_args(Average)
EARLY_EXITS: tuple[EarlyExit, ...] = get_args(EarlyExit)
MAP_NAMES: tuple[MapName, ...] = get_args(MapName)
MAP_TYPES: tuple[MapType, ...] = get_args(MapType)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
RUNTIME_NAMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
TTA_SETS: tuple[TestTimeTransforms, ...] = get_args(TestTimeTransforms)
DEVICES = ("cuda", "mps", "cpu")
MEMORY: MapName = "memory"  # asks for the maps below, one of each per classifier: memory_weight_0
MEMORY_MAPS = ("memory_uncertainty", "memory_weight")


@dataclass(frozen=True)
class EnsembleOptions:
    """How an ensemble is put together and where it runs.

    Attributes:
        folds: one fold or several, the same for every model folder; None takes all folds with members.
        members: "final", "best", "samples", "last-cycle" or a file pattern, each with an optional :COUNT, or
            "mc-dropout" with an optional :COUNT.
        device: "cuda", "cpu", "mps" or a `torch.device`; None takes the fastest available.
        average: "probabilities" is the Bayesian model average; "logits" is what stock nnU-Net averages over
            folds. It affects segmentation and probabilities; maps always describe the members' probabilities.
        model_weights: one positive number per model folder, divided evenly among its members; None gives every member
            the same weight.
        class_weights: file that `nnunet_ext weights` wrote, with a weight for each model and class or region.
        tta_members: whether every test-time transform counts as a member of its own.
        trust_checkpoints: whether checkpoints may contain more than plain data, which can run code.
        tile_step_size: step between tiles as a share of the patch size.
        use_gaussian: whether the centre of a tile has a larger weight than its border.
        tta: the test-time transforms that each member is averaged over: "flips" are stock's, along the axes that
            the training mirrored; "rot90" adds rotations by 90 degrees, "full" small rotations and scales as well.
        precision: "fp32", "bf16", or "auto", which takes bf16 on a CPU that computes faster in it; None is stock's.
        runtime: "torch", "openvino" on CPUs, or "auto", the faster in a short trial of torch and, on CPUs, OpenVINO,
            or on GPUs the compiled network in half precision. Torch runs what these cannot, and adaptation.
        early_exit: "label" skips members where they can no longer change the label; "information" where the mutual
            information has converged; None runs all members everywhere.
        postprocess: file written by `postprocess`, or nnU-Net's `postprocessing.pkl`; True takes `postprocess.json`
            in the model folder; None applies no post-processing.
        fast_resampling: whether the softmax is applied at the network's resolution and probabilities are resampled;
            stock resamples logits. Faster where images are resampled; changes the entropy at boundaries.
        max_memory: GiB of main memory that the process may take, on the CPU; None takes what is available.
        adapt: test-time adaptation of every member to every case; None predicts with the members as they are.
        allow_tqdm: whether to show a progress bar.

    Raises:
        ValueError: if a choice is unknown, the step is not in (0, 1], the memory is not above 0, early exit or fast
            resampling is asked for with averaged logits, class weights with averaged logits, early exit or model
            weights, or adaptation with early exit or reduced precision.
    """

    folds: Sequence[int | str] | int | str | None = None
    members: str = "final"
    device: Any = None
    average: Average = "probabilities"
    model_weights: Sequence[float] | None = None
    class_weights: Path | None = None
    tta_members: bool = False
    trust_checkpoints: bool = False
    tile_step_size: float = 0.5
    use_gaussian: bool = True
    tta: TestTimeTransforms = "flips"
    precision: Precision | None = None
    runtime: RuntimeName = "torch"
    early_exit: EarlyExit | None = None
    fast_resampling: bool = False
    max_memory: float | None = None
    adapt: AdaptOptions | None = None
    postprocess: Path | Literal[True] | None = None
    allow_tqdm: bool = True

    @property
    def fold_list(self) -> list[int | str] | None:
        """The folds as a list, even a single one; None takes all folds with members."""
        if self.folds is None:
            return None
        return [self.folds] if isinstance(self.folds, (int, str)) else list(self.folds)

    def __post_init__(self) -> None:
        require_choice("average", self.average, AVERAGES)
        require_choice("tta", self.tta, TTA_SETS)
        require_choice("precision", self.precision, (None, *PRECISIONS))
        require_choice("runtime", self.runtime, RUNTIME_NAMES)
        require_choice("early_exit", self.early_exit, (None, *EARLY_EXITS))
        if not 0 < self.tile_step_size <= 1:
            raise ValueError(
                f"The step of the tiles must be above 0 and at most 1 patch; found {self.tile_step_size}."
            )
        if self.max_memory is not None and not 0 < self.max_memory < math.inf:
            raise ValueError(
                f"--max-memory must be a number of GiB above 0; found {self.max_memory:g}. Leave it out for what is "
                f"available."
            )
        if self.early_exit and self.average == "logits":
            raise ValueError(
                "Early exit needs averaged probabilities; found averaged logits. Leave out "
                "--early-exit or --average logits."
            )
        if self.fast_resampling and self.average == "logits":
            raise ValueError(
                "Fast resampling needs averaged probabilities; found averaged logits. Leave out "
                "--fast-resampling or --average logits."
            )
        if self.adapt is not None:
            require_adaptable_with(self)
        if self.class_weights is not None:
            require_alone(self)


def require_alone(options: EnsembleOptions) -> None:
    """Refuses class weights together with what needs one weight per member.

    Raises:
        ValueError: if logits are averaged, there is early exit or a weight per model, or a member does not see every
            voxel.
    """
    for flag, found in (
        ("--average logits", options.average == "logits"),
        ("--early-exit", options.early_exit),
        ("model_weights", options.model_weights is not None),
        (
            "--tta full --tta-members, some of which do not see every voxel",
            options.tta == "full" and options.tta_members,
        ),
    ):
        if found:
            raise ValueError(
                f"Class-wise weights are weights of averaged probabilities, from every member; found {flag} with "
                f"{options.class_weights}. Leave out one of them."
            )


def require_adaptable_with(options: EnsembleOptions) -> None:
    """Refuses adaptation together with what it does not work with.

    Raises:
        ValueError: if there is early exit or reduced precision.
    """
    if options.early_exit:
        raise ValueError(
            "Adaptation needs every member's whole prediction, which early exit avoids; found both. Leave out "
            "--adapt or --early-exit."
        )
    if options.precision not in (None, "fp32"):
        raise ValueError(
            f"Adaptation needs weights in single precision; found precision {options.precision!r}. Leave out "
            f"--adapt or --precision."
        )


@dataclass(frozen=True)
class OutputOptions:
    """What is written for each case, and how a run divides its work.

    Attributes:
        maps: names of the uncertainty maps.
        map_type: data type of the map files.
        save_probabilities: whether to write `CASE.npz` and `CASE.pkl`, as stock does.
        save_members: whether to write each member's own segmentation.
        continue_prediction: whether to skip cases whose files are complete.
        previous_stage: folder with the segmentations of a cascade's first stage.
        num_parts: number of runs among which the cases are divided.
        part_id: which of these runs this is, from 0.
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
        unknown = sorted(name for name in {*self.maps} - {*MAP_NAMES} if name.rpartition("_")[0] not in MEMORY_MAPS)
        if unknown:
            raise ValueError(f"Maps must be among {', '.join(MAP_NAMES)}; found {', '.join(unknown)}.")
        require_choice("The type of the maps", self.map_type, MAP_TYPES)
        if not 0 <= self.part_id < self.num_parts:
            raise ValueError(
                f"Parts are numbered 0 to num_parts - 1; found part {self.part_id} of {self.num_parts}. With 3 parts "
                f"use 0, 1 and 2."
            )


@dataclass(frozen=True)
class PredictOptions:
    """What `nnunet_ext predict` does.

    Attributes:
        images: folder of the images.
        results: output folder.
        model: which models make up the ensemble.
        ensemble: how its members are combined, and where it runs.
        output: what is written.
        calibration: file written by `calibrate`; True takes `calibration.json` in the model folder; None applies no
            calibration.
        cluster: Ray cluster that predicts the cases; None predicts them in this process.
        dicom_seg: whether segmentations of DICOM series are written as DICOM, too.
    """

    images: Path
    results: Path
    model: ModelChoice
    ensemble: EnsembleOptions = field(default_factory=EnsembleOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    calibration: Path | Literal[True] | None = None
    cluster: ClusterOptions | None = None
    dicom_seg: bool = False


# Names in `predict_args.json` of options whose flags are stock's.
RECORDED_AS = {"images": "i", "results": "o", "calibration": "calibrated"}


def recorded(options: PredictOptions) -> dict[str, Any]:
    """The options as `predict_args.json` holds them: one level, with the names that users know and absolute paths."""
    content = asdict(options)
    for group in ("model", "ensemble", "output"):
        content |= content.pop(group)
    return {RECORDED_AS.get(name, name): absolute(value) for name, value in content.items()}


def absolute(value: Any) -> Any:
    """A path, or those of a list, such that they can be followed from any folder; other values as they are."""
    if isinstance(value, (list, tuple)):
        return [absolute(each) for each in value]
    return str(value.absolute()) if isinstance(value, Path) else value
