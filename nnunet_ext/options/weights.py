"""Options of `weights`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_ext.options.prediction import EnsembleOptions
from nnunet_ext.patients import expression_of


@dataclass(frozen=True)
class WeightsOptions:
    """What `nnunet_ext weights` does.

    Attributes:
        folders: the model folders, in the order in which they predict together.
        file: where the weights are saved.
        ensemble: which members predict, and where they run; without weights.
        pull: strength of the pull to equal weights.
        best: number of models that share each class or region; None learns the weights.
        splits: file with the splits used in training; None takes `splits_final.json` in `nnUNet_preprocessed`.
        patients: pattern whose group is the patient in a case's name; None counts each case as a patient.
        previous_stage: folder with the segmentations of a cascade's first stage.

    Raises:
        ValueError: if a folder is named twice, a value is out of range, the ensemble has weights, averages logits or
            exits early, or the pattern is not a regular expression with a group.
    """

    folders: tuple[Path, ...]
    file: Path
    ensemble: EnsembleOptions = field(default_factory=EnsembleOptions)
    pull: float = 0.01
    best: int | None = None
    splits: Path | None = None
    patients: str | None = None
    previous_stage: Path | None = None

    def __post_init__(self) -> None:
        names = [folder.name for folder in self.folders]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"Weights belong to model folders with different names; found {', '.join(names) or 'none'}. Give "
                f"each model once; rename the folder of one if two have the same name."
            )
        if not 0 <= self.pull < math.inf:
            raise ValueError(f"The pull to equal weights must be 0 or more; found {self.pull}. 0.01 is the default.")
        if self.best is not None and not 1 <= self.best <= len(names):
            raise ValueError(
                f"The number of best models must be from 1 to the {len(names)} folders; found {self.best}. Correct "
                f"--best."
            )
        ensemble = self.ensemble
        if (ensemble.model_weights, ensemble.class_weights, ensemble.early_exit) != (None, None, None):
            raise ValueError(
                "Weights are fitted to models without weights and early exit; found some. Leave them out."
            )
        if ensemble.average != "probabilities":
            raise ValueError(
                f"Weights are weights of probabilities; found averaged {ensemble.average}. Leave it out."
            )
        if self.patients is not None:
            expression_of(self.patients)
