"""Which trained models a command works on, and the options of `check` and `export`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


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
class CheckOptions:
    """What `nnunet_ext check` checks.

    Attributes:
        images: folder of the images.
        model: models that the images are for; None for a dataset that has no model yet.
        dataset: name or id of that dataset, in `nnUNet_raw` or `nnUNet_preprocessed`.
        previous_stage: folder with the segmentations of a cascade's first stage, checked as well.
        allow_tqdm: whether to show a progress bar.

    Raises:
        ValueError: if neither a model nor a dataset is given, or both.
    """

    images: Path
    model: ModelChoice | None = None
    dataset: str | None = None
    previous_stage: Path | None = None
    allow_tqdm: bool = True

    def __post_init__(self) -> None:
        if (self.model is None) == (self.dataset is None):
            raise ValueError(
                f"Images are checked for a model or for a dataset; found model {self.model} and dataset "
                f"{self.dataset}. Give one of the two."
            )


@dataclass(frozen=True)
class PlainCopyOptions:
    """What `nnunet_ext export` copies.

    Attributes:
        results: results folder for the copies, laid out like `nnUNet_results`; created if missing.
        folds: folds to copy; None takes all folds with the checkpoint.
        checkpoint: file name in each fold, or a pattern of several.
        classifier: which classifier of a Streaming model to copy, from 0.
        trust_checkpoints: whether checkpoints may contain more than plain data, which can run code.
    """

    results: Path
    folds: Sequence[int | str] | None = None
    checkpoint: str = "checkpoint_final.pth"
    classifier: int | None = None
    trust_checkpoints: bool = False
