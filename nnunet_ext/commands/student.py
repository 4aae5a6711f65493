"""The preprocessed dataset of a student, and how a teacher's probabilities are brought onto its grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_ext.commands.planned_dataset import PlannedDataset
from nnunet_ext.trainers.fewer_labels.unlabelled_cases import unlabelled_dataset, unlabelled_folder


@dataclass(frozen=True)
class Student:
    """What a student is trained on.

    Attributes:
        name: of the dataset.
        dataset_json: its description.
        plans: nnU-Net's.
        configuration: of the plans.
        folder: of the preprocessed cases.
        cases: nnU-Net's dataset in that folder.
    """

    name: str
    dataset_json: Mapping[str, Any]
    plans: PlansManager
    configuration: ConfigurationManager
    folder: Path
    cases: Any

    @classmethod
    def open(cls, dataset: str, plans_name: str, configuration: str) -> Student:
        """Finds a student's data in `nnUNet_preprocessed`.

        Args:
            dataset: name or id.
            plans_name: of the plans' file, without ending.
            configuration: of the plans.

        Raises:
            FileNotFoundError: if plans or preprocessed cases do not exist.
            ValueError: if the plans have no such configuration, or nnU-Net's variables are not set.
        """
        planned = PlannedDataset.open(dataset, plans_name)
        manager = planned.configuration(configuration)
        folder = planned.folder / manager.data_identifier
        if not folder.is_dir() or not any(folder.iterdir()):
            raise FileNotFoundError(
                f"Probabilities are written for preprocessed cases; {folder} has none. Run "
                f"nnUNetv2_preprocess -d {dataset} -plans_name {plans_name} -c {configuration} first."
            )
        cases = infer_dataset_class(str(folder))(str(folder))
        return cls(planned.name, planned.description(), planned.manager, manager, folder, cases)

    def without_labels(self, plans_name: str, configuration: str) -> Student:
        """The same student with its preprocessed cases without labels instead.

        Args:
            plans_name: of the plans' file, without ending.
            configuration: of the plans.

        Raises:
            FileNotFoundError: if there is none.
        """
        folder = unlabelled_folder(self.folder)
        return replace(self, folder=folder, cases=unlabelled_dataset(folder, self.name, plans_name, configuration))

    def shape_of(self, case: str) -> tuple[int, ...]:
        """Voxels of a preprocessed case along nnU-Net's axes."""
        return tuple(self.cases.load_case(case)[0].shape[1:])

    def on_grid(self, probabilities: np.ndarray, case: str) -> np.ndarray:
        """Probabilities of the whole image on the grid of the preprocessed case.

        They are transposed, cropped and resampled as the image was, by the plans' function for probabilities.

        Args:
            probabilities: (C, *image) on the axes of nnU-Net's reader.
            case: its name.

        Returns:
            (C, z, y, x) in fp32, between 0 and 1.

        Raises:
            ValueError: if the image has another shape than the one that was preprocessed.
        """
        image, _, _, properties = self.cases.load_case(case)
        forward = self.plans.transpose_forward
        volume = probabilities.transpose(0, *(axis + 1 for axis in forward))
        before = tuple(properties["shape_before_cropping"])
        if volume.shape[1:] != before:
            raise ValueError(
                f"The image of {case} must be the one that was preprocessed; its shape is {volume.shape[1:]}, was "
                f"{before}. Preprocess the dataset again."
            )
        crop = (slice(None), *(slice(first, last) for first, last in properties["bbox_used_for_cropping"]))
        return resampled(
            volume[crop],
            tuple(image.shape[1:]),
            [float(properties["spacing"][axis]) for axis in forward],
            self.configuration,
        )


def resampled(
    volume: np.ndarray, shape: tuple[int, ...], spacing_mm: Sequence[float], configuration: ConfigurationManager
) -> np.ndarray:
    """A volume (C, *spatial) of this spacing on a configuration's grid (C, *shape), clipped to probabilities."""
    volume = np.ascontiguousarray(volume, np.float32)
    if volume.shape[1:] == shape:
        return volume
    target = list(configuration.spacing)
    target = [*spacing_mm[: len(spacing_mm) - len(target)], *target]  # 2D: slices are not resampled
    found = configuration.resampling_fn_probabilities(volume, shape, spacing_mm, target)
    return np.clip(np.asarray(found, np.float32), 0, 1)
