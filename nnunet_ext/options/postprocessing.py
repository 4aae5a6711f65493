"""Options of `postprocess`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

from nnunet_ext.options.choices import require_choice
from nnunet_ext.options.models import ModelChoice
from nnunet_ext.options.prediction import EnsembleOptions
from nnunet_ext.patients import expression_of

OperationName = Literal["hierarchy", "hysteresis", "minimum_size", "largest_component", "fill_holes", "relabel_small"]

OPERATION_NAMES: tuple[OperationName, ...] = get_args(OperationName)
# Options that do not say how the training predicted.
NOT_OF_VALIDATION = ("device", "trust_checkpoints", "precision", "runtime", "max_memory", "allow_tqdm", "folds")


@dataclass(frozen=True)
class PostprocessOptions:
    """What `nnunet_ext postprocess` does.

    Attributes:
        model: which models make up the ensemble.
        ensemble: how its members are combined, and where it runs.
        from_validation: whether the segmentations that the training wrote to `fold_X/validation` are taken instead of
            predicting; probabilities, too, if every case has `CASE.npz`.
        operations: names of the operations that are tried; None tries all.
        relabel: pairs of names: a small structure, and the one that it may become.
        file: where the result is saved; None takes `postprocess.json` in the model folder.
        splits: file with the splits used in training; None takes `splits_final.json` in `nnUNet_preprocessed`.
        patients: pattern whose group is the patient in a case's name; None counts each case as a patient.
        previous_stage: folder with the segmentations of a cascade's first stage.

    Raises:
        ValueError: if an operation is unknown, the pattern is not a regular expression with a group, the ensemble is
            post-processed already, or validation folders are taken for an ensemble that did not write them.
    """

    model: ModelChoice
    ensemble: EnsembleOptions = field(default_factory=EnsembleOptions)
    from_validation: bool = False
    operations: Sequence[str] | None = None
    relabel: Sequence[tuple[str, str]] = ()
    file: Path | None = None
    splits: Path | None = None
    patients: str | None = None
    previous_stage: Path | None = None

    def __post_init__(self) -> None:
        for name in self.operations or ():
            require_choice("An operation", name, OPERATION_NAMES)
        if self.patients is not None:
            expression_of(self.patients)
        if self.ensemble.postprocess is not None:
            raise ValueError("Post-processing is chosen on raw segmentations; the ensemble has some already.")
        if self.from_validation:
            self._require_stock_ensemble()

    def _require_stock_ensemble(self) -> None:
        if len(self.model.folders) > 1:
            raise ValueError(
                f"Validation folders hold the predictions of one model; found {len(self.model.folders)} model "
                f"folders. Leave out --from-validation, which predicts the cases."
            )
        default = EnsembleOptions()
        for option in fields(EnsembleOptions):
            value = getattr(self.ensemble, option.name)
            if option.name not in NOT_OF_VALIDATION and value != getattr(default, option.name):
                raise ValueError(
                    f"Validation folders hold the predictions of checkpoint_final, as stock makes them; found "
                    f"{option.name} {value!r}. Leave out --from-validation, which predicts the cases."
                )
