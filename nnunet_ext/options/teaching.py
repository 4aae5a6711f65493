"""Options of `teach`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nnunet_ext.options.prediction import EnsembleOptions
from nnunet_ext.patients import expression_of


@dataclass(frozen=True)
class TeachOptions:
    """What `nnunet_ext teach` writes.

    Attributes:
        dataset: name or id of the dataset, preprocessed for the student.
        configuration: of the student.
        plans: of the student.
        teachers: folders of the models that teach, trained on the same dataset.
        ensemble: which members teach, and where they run.
        top: number of classes that are kept of each voxel, where the dataset has too many to keep all.
        splits: file with the splits used in training; None takes `splits_final.json` in `nnUNet_preprocessed`.
        patients: pattern whose group is the patient in a case's name; None counts each case as a patient.
        previous_stage: folder with the segmentations of a cascade's first stage, for teachers that need it.
        overwrite: whether the probabilities of another teacher are removed first.
        unlabelled: whether the cases without labels are taught, by the members of all folds together.

    Raises:
        ValueError: if there is no teacher, one is named twice, `top` is below 2, or the pattern is not a regular
            expression with a group.
    """

    dataset: str
    configuration: str
    teachers: tuple[Path, ...]
    plans: str = "nnUNetPlans"
    ensemble: EnsembleOptions = field(default_factory=EnsembleOptions)
    top: int = 4
    splits: Path | None = None
    patients: str | None = None
    previous_stage: Path | None = None
    overwrite: bool = False
    unlabelled: bool = False

    def __post_init__(self) -> None:
        names = [folder.name for folder in self.teachers]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"Teachers are model folders with different names; found {', '.join(names) or 'none'}. Give each "
                f"once with -m; rename the folder of one if two have the same name."
            )
        if self.top < 2:
            raise ValueError(f"At least 2 classes of a voxel must be kept; found {self.top}. Correct --top.")
        if self.patients is not None:
            expression_of(self.patients)
