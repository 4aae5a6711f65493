"""Options of `pseudo-label`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_ext.options.choices import require_share
from nnunet_ext.patients import expression_of

HIGHEST_ID = 999
NO_LIMIT = 1.0  # of disagreement, whose largest value it is


@dataclass(frozen=True)
class PseudoLabelOptions:
    """What `nnunet_ext pseudo-label` writes.

    Attributes:
        dataset: name or id of the dataset with labels.
        images: folder of the images without labels.
        predictions: folder that `nnunet_ext predict --save_probabilities` wrote for them.
        new_id: number of the new dataset.
        name: its name after the number; None takes that of the dataset with "Pseudo" and the round.
        confidence: a voxel with a lower confidence in its label becomes ignored; `least_kept` may lower this limit.
        label_confidence: label to a limit of its own, which is not lowered.
        least_kept: the limit of a label is lowered until this share of the voxels predicted as it is kept; 0 lowers
            none.
        most_disagreement: a voxel with a larger mutual information becomes ignored; 1 needs no map of it.
        splits: file with the splits of the dataset with labels; None takes `splits_final.json` in
            `nnUNet_preprocessed`.
        patients: pattern whose group is the patient in a case's name; None counts each case as a patient.
        allow_tqdm: whether to show a progress bar.

    Raises:
        ValueError: if a number is out of range, or the pattern is not a regular expression with a group.
    """

    dataset: str
    images: Path
    predictions: Path
    new_id: int
    name: str | None = None
    confidence: float = 0.9
    label_confidence: Mapping[int, float] = field(default_factory=dict)
    least_kept: float = 0.5
    most_disagreement: float = 0.1
    splits: Path | None = None
    patients: str | None = None
    allow_tqdm: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.new_id <= HIGHEST_ID:
            raise ValueError(f"--new-id must be 1 to {HIGHEST_ID}; found {self.new_id}.")
        for limit in (self.confidence, *self.label_confidence.values()):
            require_share("--confidence", limit, one_allowed=True)
        if not 0 <= self.least_kept <= 1:
            raise ValueError(f"--least-kept must be 0 to 1; found {self.least_kept}.")
        require_share("--most-disagreement", self.most_disagreement, one_allowed=True)
        if self.patients is not None:
            expression_of(self.patients)
