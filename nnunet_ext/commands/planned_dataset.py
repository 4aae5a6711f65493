"""A dataset that nnU-Net has planned, in `nnUNet_preprocessed`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_ext.commands.training_cases import variable_folder
from nnunet_ext.descriptions import OF_PLANS, read_description


@dataclass(frozen=True)
class PlannedDataset:
    """A dataset and plans of it.

    Attributes:
        name: full name of the dataset.
        folder: of the dataset in `nnUNet_preprocessed`.
        plans_file: in that folder.
        plans: its content.
    """

    name: str
    folder: Path
    plans_file: Path
    plans: dict[str, Any]

    @classmethod
    def open(cls, dataset: str, plans_name: str, needed: Sequence[str] = OF_PLANS) -> PlannedDataset:
        """Finds the plans.

        Args:
            dataset: name or id.
            plans_name: of the plans' file, without ending.
            needed: keys that the plans must have.

        Raises:
            FileNotFoundError: if the dataset has no such plans.
            ValueError: if `nnUNet_preprocessed` is not set, or the file holds no plans.
        """
        name = maybe_convert_to_dataset_name(dataset)
        folder = variable_folder("nnUNet_preprocessed") / name
        file = folder / f"{plans_name}.json"
        if not file.is_file():
            raise FileNotFoundError(
                f"A dataset must be planned first; {file} does not exist. Run nnUNetv2_plan_and_preprocess -d "
                f"{dataset}, or name other plans with -p."
            )
        return cls(name, folder, file, read_description(file, needed))

    def description(self) -> dict[str, Any]:
        """The `dataset.json` beside the plans.

        Raises:
            FileNotFoundError: if there is none.
        """
        file = self.folder / "dataset.json"
        if not file.is_file():
            raise FileNotFoundError(
                f"A planned dataset has its description beside the plans; {file} does not exist. Run "
                f"nnUNetv2_plan_and_preprocess again."
            )
        return read_description(file, ["labels"])

    @property
    def manager(self) -> PlansManager:
        """The plans as nnU-Net reads them."""
        return PlansManager(self.plans)

    def configuration(self, name: str) -> ConfigurationManager:
        """One of the configurations.

        Raises:
            ValueError: if the plans have none of this name.
        """
        known = self.plans["configurations"]
        if name not in known:
            raise ValueError(
                f"-c must be a configuration of {self.plans_file}: {', '.join(known)}; found {name}. Write one of "
                f"them, or name other plans with -p."
            )
        return self.manager.get_configuration(name)
