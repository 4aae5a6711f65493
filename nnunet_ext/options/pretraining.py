"""Options of `pretrain`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

from nnunet_ext.options.choices import require_choice
from nnunet_ext.patients import expression_of

Preset = Literal["B", "L"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
BATCH_SIZES: dict[Preset, int] = {"B": 6, "L": 48}  # of the paper


@dataclass(frozen=True)
class ScanFilter:
    """Which scans are left out; None does not filter.

    Attributes:
        min_fov_mm: shortest field of view, number of voxels times spacing, along any axis.
        max_spacing_mm: largest spacing along any axis.
        min_file_kb: smallest size of a file, in units of 1000 bytes.
        max_file_mb: largest size of a file, in units of 1000000 bytes.

    Raises:
        ValueError: if a limit is not positive.
    """

    min_fov_mm: float | None = None
    max_spacing_mm: float | None = None
    min_file_kb: float | None = None
    max_file_mb: float | None = None

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value is not None and not value > 0:
                raise ValueError(f"{limit.name} must be above 0; found {value}. Leave it out to keep all scans.")


@dataclass(frozen=True)
class FixedPlans:
    """The plans of the paper: ResEnc-L at one spacing.

    Attributes:
        spacing_mm: along all axes.
        patch_size: voxels along all axes, a multiple of 32.

    Raises:
        ValueError: if the spacing is not positive, or the patch is no multiple of 32.
    """

    spacing_mm: float = 1.0
    patch_size: int = 160

    def __post_init__(self) -> None:
        if not self.spacing_mm > 0:
            raise ValueError(f"spacing_mm must be above 0; found {self.spacing_mm}.")
        if self.patch_size <= 0 or self.patch_size % 32:
            raise ValueError(f"patch_size must be a multiple of 32, the network's stride; found {self.patch_size}.")


@dataclass(frozen=True)
class PretrainOptions:
    """What `nnunet_ext pretrain` prepares and trains.

    Attributes:
        images: folder of the scans: CASE_0000<ending>, one file per channel, or one file per scan with any name.
        dataset: name or id of the dataset that is made.
        file_ending: of the scans; None takes the most frequent one in the folder.
        scan_filter: which scans are left out.
        removed: folder of masks CASE<ending>, above 0 where an image was defaced or otherwise made anonymous; the
            losses of reconstructions leave these voxels out. None if nothing was.
        plans: plans.json of another dataset whose spacing, normalisation and network are used; None for `fixed`.
        configuration: of the plans.
        fixed: the paper's plans.
        preset: "B" or "L": batch size of the fixed plans, learning rate and length.
        batch_size: None takes that of the preset with fixed plans, that of the plans otherwise.
        patients: pattern whose group is the patient in a scan's name; None counts each scan as a patient.
        trainer: name of the trainer; None prepares the data only.
        fold: which scans are held out, from 0.
        continue_training: whether to continue from the last checkpoint.
        device: "cuda", "cpu" or "mps"; None takes what is there.
        processes: how many scans are preprocessed at the same time.
        num_gpus: GPUs to train on.
        allow_tqdm: whether to show a progress bar.

    Raises:
        ValueError: if a value is out of range.
    """

    images: Path
    dataset: str
    file_ending: str | None = None
    scan_filter: ScanFilter = field(default_factory=ScanFilter)
    removed: Path | None = None
    plans: Path | None = None
    configuration: str = "3d_fullres"
    fixed: FixedPlans = field(default_factory=FixedPlans)
    preset: Preset = "B"
    batch_size: int | None = None
    patients: str | None = None
    trainer: str | None = "nnUNetTrainerS3D"
    fold: int = 0
    continue_training: bool = False
    device: str | None = None
    processes: int = 1
    num_gpus: int = 1
    allow_tqdm: bool = True

    def __post_init__(self) -> None:
        require_choice("preset", self.preset, PRESETS)
        if self.patients is not None:
            expression_of(self.patients)
        for name in ("processes", "num_gpus") + (("batch_size",) if self.batch_size is not None else ()):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; found {getattr(self, name)}.")
        if self.plans is None and self.configuration != "3d_fullres":
            raise ValueError(
                f"The fixed plans have the configuration 3d_fullres only; found {self.configuration}. Give --plans."
            )
