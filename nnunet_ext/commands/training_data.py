"""The training cases of a model's dataset: images, labels and splits, found in nnU-Net's folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ext.commands.training_cases import splits_file, training_files
from nnunet_ext.evaluation.folder import Dataset, open_dataset
from nnunet_ext.labels import LabelScheme
from nnunet_ext.models.description import model_description
from nnunet_ext.prediction_folder.cases import Case
from nnunet_ext.splits import Split, read_splits


@dataclass(frozen=True)
class TrainingData:
    """The training cases of a model's dataset.

    Attributes:
        description: the dataset.
        files: case to its "images" and "label".
        splits: one entry per fold.
        ending: file ending of images and label maps.
    """

    description: Dataset
    files: Mapping[str, Mapping[str, Any]]
    splits: Sequence[Split]
    ending: str

    @classmethod
    def open(cls, model_folder: Path, chosen_splits: Path | None) -> TrainingData:
        """Finds the dataset that a model was trained on in nnU-Net's folders.

        Args:
            model_folder: with `plans.json` and `dataset.json`.
            chosen_splits: file with the splits; None takes the dataset's own in `nnUNet_preprocessed`.

        Raises:
            FileNotFoundError: if images or splits are not there.
            ValueError: if nnU-Net's variables are not set.
        """
        plans, dataset_json = model_description(model_folder)
        name = plans["dataset_name"]
        files = training_files(name, dataset_json)
        splits = read_splits(chosen_splits if chosen_splits else splits_file(name))
        examples = [Path(of_case["label"]) for of_case in files.values()]
        return cls(open_dataset(dataset_json, plans, examples), files, splits, dataset_json["file_ending"])

    def scheme(self) -> LabelScheme:
        """How label maps and the network's outputs are interpreted."""
        dataset = self.description
        return LabelScheme(dataset.structures, dataset.regions, dataset.ignore_label)

    def case(self, name: str, previous_stage_folder: Path | None) -> Case:
        """The case of a name in the splits.

        Raises:
            ValueError: if the dataset has no such case.
        """
        if name not in self.files:
            raise ValueError(
                f"The splits must name cases of the dataset; it has no {name}. Give the right splits with --splits."
            )
        previous = previous_stage_folder / f"{name}{self.ending}" if previous_stage_folder else None
        return Case(name, tuple(Path(file) for file in self.files[name]["images"]), previous)
