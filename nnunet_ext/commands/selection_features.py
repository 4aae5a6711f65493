"""The features by which `select --strategy k-centre` compares units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_ext.commands.selection_pool import Pool
from nnunet_ext.inference.bottleneck import bottleneck_of, in_preprocessed, pooled_features
from nnunet_ext.inference.engine import open_models
from nnunet_ext.models.model import Model
from nnunet_ext.options import EnsembleOptions
from nnunet_ext.prediction_folder.cases import Case, find_cases
from nnunet_ext.selection.table import box_text
from nnunet_ext.selection.units import Choice, Unit

FILE_NAME = "features.npz"


@dataclass(frozen=True)
class FeatureSource:
    """One member of the model, and the pool whose units it sees.

    Attributes:
        pool: of the command.
        model: with one member loaded.
    """

    pool: Pool
    model: Model

    @classmethod
    def open(cls, pool: Pool) -> FeatureSource:
        """Loads the model that was named, or the recorded first member.

        Raises:
            FileNotFoundError: if the model is not there.
            ValueError: if no model is named and none recorded, or its network has no features to compare.
        """
        options = pool.options
        ensemble = EnsembleOptions(device=options.device)
        folder = options.model
        if folder is None:
            members = pool.record.get("members") or []
            if not members:
                raise ValueError(
                    f"k-centre compares features of the model; {options.predictions} does not record which one "
                    f"predicted it. Give its folder with -m."
                )
            file = Path(members[0]["file"])
            folder = file.parents[1]
            fold = file.parent.name.removeprefix("fold_")
            ensemble = EnsembleOptions(
                device=options.device, members=file.name, folds=[int(fold) if fold.isdecimal() else fold]
            )
        (model,) = open_models([folder], ensemble)
        model.load(model.members[0])
        bottleneck_of(model.network)  # refuses a network before any image is read
        return cls(pool, model)

    def of_units(self, units: Sequence[Unit], images: Mapping[str, Case]) -> np.ndarray:
        """(units, features).

        Raises:
            FileNotFoundError: if the image of a case is not there.
        """
        found: dict[int, np.ndarray] = {}
        of_case: dict[str, list[int]] = {}
        for index, unit in enumerate(units):
            of_case.setdefault(unit.case, []).append(index)
        for case, indices in self.bar(of_case.items(), "features"):
            if case not in images:
                raise FileNotFoundError(
                    f"k-centre looks at the images of the most uncertain cases; that of {case} is not there. Give "
                    f"the folder of the predicted images with -i."
                )
            found |= dict(zip(indices, self.of_boxes(images[case], [units[i] for i in indices]), strict=True))
        return np.stack([found[index] for index in range(len(units))])

    def of_labelled(self) -> np.ndarray | None:
        """(cases, features) of the labelled images as a whole; None without any."""
        folder = self.pool.options.labelled
        if folder is None:
            return None
        cases = find_cases(folder, self.pool.dataset.file_ending)
        return np.stack([self.of_boxes(case, [None])[0] for case in self.bar(cases, "labelled")])

    def of_boxes(self, case: Case, units: Sequence[Unit | None]) -> list[np.ndarray]:
        """The features of some units of a case; None is the whole image."""
        model = self.model
        image, properties = model.preprocess(case)
        device = next(model.network.parameters()).device
        image, shape = image.to(device), tuple(image.shape[1:])
        run = bottleneck_of(model.network)
        parts = [
            [(0, size) for size in shape]
            if unit is None
            else in_preprocessed(unit.box, shape, properties, model.plans.transpose_forward)
            for unit in units
        ]
        return [pooled_features(run, image, part, model.configuration.patch_size) for part in parts]

    def save(self, candidates: Sequence[Choice], features: np.ndarray) -> None:
        """Writes the features of the candidates beside the table."""
        folder = self.pool.options.output
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(
            folder / FILE_NAME,
            case=[candidate.unit.case for candidate in candidates],
            box=[box_text(candidate.unit.box) for candidate in candidates],
            features=features,
        )

    def bar(self, cases: object, what: str) -> tqdm:
        """A progress bar over cases."""
        return tqdm(cases, desc=what, unit="case", disable=not self.pool.options.allow_tqdm)
