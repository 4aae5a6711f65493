"""Lists the trained models of a dataset from their folders. Does not import torch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.files.listing import visible_files
from nnunet_ext.samples import read_manifest

SEPARATOR = "__"  # TRAINER__PLANS__CONFIGURATION
CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class TrainedModel:
    """One model folder of `nnUNet_results`.

    Attributes:
        folder: the `TRAINER__PLANS__CONFIGURATION` folder.
        folds: the folds with a final checkpoint: "0", "1", "all".
        unfinished: the folds that have checkpoints, but no final one.
        samples: total number of posterior samples of all folds.
        is_calibrated: whether `nnunet_ext calibrate` has stored a calibration.
    """

    folder: Path
    folds: tuple[str, ...]
    unfinished: tuple[str, ...]
    samples: int
    is_calibrated: bool

    @property
    def flags(self) -> str:
        """The flags that select the model, after `-d DATASET`."""
        trainer, plans, configuration = self.folder.name.split(SEPARATOR)
        return f"-tr {trainer} -p {plans} -c {configuration}"


def trained_models(dataset_folder: Path) -> list[TrainedModel]:
    """The models in a dataset's folder of `nnUNet_results`, sorted by name; empty if the folder does not exist."""
    found = []
    for folder in sorted(dataset_folder.glob(f"*{SEPARATOR}*{SEPARATOR}*")):
        if len(folder.name.split(SEPARATOR)) != 3:
            continue
        fold_folders = sorted(path for path in folder.glob("fold_*") if visible_files(path, "*.pth"))
        finished = [path for path in fold_folders if (path / "checkpoint_final.pth").is_file()]
        found.append(
            TrainedModel(
                folder,
                tuple(name_of(path) for path in finished),
                tuple(name_of(path) for path in fold_folders if path not in finished),
                sum(len(read_manifest(path)) for path in fold_folders),
                (folder / CALIBRATION).is_file(),
            )
        )
    return found


def name_of(fold_folder: Path) -> str:
    """The fold's name without its prefix: "0" for `fold_0`."""
    return fold_folder.name.removeprefix("fold_")


def closest_first(models: list[TrainedModel], wanted: str) -> list[TrainedModel]:
    """The models sorted by how similar their folders' names are to `wanted`, the most similar first."""
    return sorted(models, key=lambda model: -difflib.SequenceMatcher(None, model.folder.name, wanted).ratio())
