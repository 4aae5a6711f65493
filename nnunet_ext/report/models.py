"""The model folders behind a prediction, if they are on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from nnunet_ext.report.training import FoldTraining, read_training
from nnunet_ext.report.weight_map import WeightMap, map_samples


@dataclass(frozen=True)
class Fold:
    """One trained fold.

    Attributes:
        name: of its folder.
        training: what nnU-Net logged; None where no checkpoint holds it.
        weights: the map of a Cyclical training's samples; None for other trainings.
    """

    name: str
    training: FoldTraining | None
    weights: WeightMap | None


@dataclass(frozen=True)
class ModelFolder:
    """`DATASET/TRAINER__PLANS__CONFIGURATION`.

    Attributes:
        dataset: name of the dataset's folder; empty if it is not known.
        name: of the folder itself.
        folds: those of the members.
        found: whether the folder is on this machine.
    """

    dataset: str
    name: str
    folds: tuple[Fold, ...]
    found: bool


def model_folders(members: Sequence[Mapping[str, Any]], *, mapped_samples: int) -> list[ModelFolder]:
    """One a model, in the order of the members.

    Args:
        members: as `predict_args.json` lists them.
        mapped_samples: samples of a fold that are read for the map of its weights; below 3 none.
    """
    fold_paths = dict.fromkeys(recorded_path(str(member["file"])).parent for member in members if "file" in member)
    model_paths = dict.fromkeys(path.parent for path in fold_paths)
    return [
        ModelFolder(
            dataset=path.parent.name,
            name=path.name,
            folds=tuple(
                read_fold(Path(fold), mapped_samples)
                for fold in fold_paths
                if fold.parent == path and Path(fold).is_dir()
            ),
            found=Path(path).is_dir(),
        )
        for path in model_paths
        if path.name  # a checkpoint without folders says nothing about a model
    ]


def recorded_path(text: str) -> PurePosixPath | PureWindowsPath:
    """A path of `predict_args.json`, which may have been written on another system."""
    return PureWindowsPath(text) if "\\" in text else PurePosixPath(text)


def read_fold(folder: Path, mapped_samples: int) -> Fold:
    """What a fold's folder tells about its training."""
    return Fold(folder.name, read_training(folder), map_samples(folder, mapped_samples))
