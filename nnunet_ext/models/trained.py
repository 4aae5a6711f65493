"""Which models of a dataset are trained, as their folders show. Torch is not imported."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.samples import read_manifest

SEPARATOR = "__"  # TRAINER__PLANS__CONFIGURATION
CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class TrainedModel:
    """One model folder.

    Attributes:
        folder: `TRAINER__PLANS__CONFIGURATION`.
        folds: names of the folds with a final checkpoint, "0", "1", "all".
        unfinished: names of those that have other checkpoints only.
        samples: how many posterior samples all folds have together.
        is_calibrated: whether `nnunet_ext calibrate` has written its file.
    """

    folder: Path
    folds: tuple[str, ...]
    unfinished: tuple[str, ...]
    samples: int
    is_calibrated: bool

    @property
    def flags(self) -> str:
        """The flags that name it, behind `-d DATASET`."""
        trainer, plans, configuration = self.folder.name.split(SEPARATOR)
        return f"-tr {trainer} -p {plans} -c {configuration}"


def trained_models(dataset_folder: Path) -> list[TrainedModel]:
    """The models of a dataset's folder in `nnUNet_results`, by name; none if there is no such folder."""
    found = []
    for folder in sorted(dataset_folder.glob(f"*{SEPARATOR}*{SEPARATOR}*")):
        if len(folder.name.split(SEPARATOR)) != 3:
            continue
        fold_folders = sorted(path for path in folder.glob("fold_*") if any(path.glob("*.pth")))
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
    """ "0" of `fold_0`."""
    return fold_folder.name.removeprefix("fold_")


def closest_first(models: list[TrainedModel], wanted: str) -> list[TrainedModel]:
    """The models in the order in which their folders' names resemble a name."""
    return sorted(models, key=lambda model: -difflib.SequenceMatcher(None, model.folder.name, wanted).ratio())
