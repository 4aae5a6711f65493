"""Folds whose members predict the cases that they held out: which there are, and that no case is missing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_ext.calibration.held_out_cases import held_out_cases
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.inference.run import CaseSink, RunOutcome, progress_logger
from nnunet_ext.models.members import MemberRule, folders_with_members
from nnunet_ext.models.model import Model, require_previous_stage
from nnunet_ext.options import EnsembleOptions, OutputOptions
from nnunet_ext.patients import PATTERN_OF_SUCH_NAMES, cases_of_one_name, patient_of
from nnunet_ext.prediction_folder.cases import Case
from nnunet_ext.splits import Split, case_of_two_folds

PROBABILITIES = OutputOptions(maps=(), save_probabilities=True)  # what is asked of the members

logger = logging.getLogger(__name__)


class CaseNotPredictedError(RuntimeError):
    """A case could not be predicted; a result without it would hide that."""


def members_of_fold(
    fold: int | str, folders: Sequence[Path], ensemble: EnsembleOptions, previous_stage: Path | None = None
) -> EnsembleEngine:
    """The ensemble of the members that a fold has.

    Args:
        fold: its number, or "all".
        folders: of the models.
        ensemble: how the members are combined.
        previous_stage: folder of the segmentations of a cascade's first stage.

    Raises:
        ValueError: if a model is the second stage of a cascade and there is no first one; see also `EnsembleEngine`.
    """
    engine = EnsembleEngine.from_model_folders(folders, ensemble, folds=[fold])
    require_previous_stage(previous_stage, engine.models)
    return engine


def predict_fold(engine: EnsembleEngine, fold: int | str, cases: Sequence[Case], sink: CaseSink) -> None:
    """Predicts the held-out cases of a fold with its members, and passes their probabilities to the sink.

    Raises:
        CaseNotPredictedError: if a case could not be predicted.
    """
    progress_logger.info("fold %s: %d held-out cases", fold, len(cases))
    require_all_predicted(engine.predict_cases(cases, sink, PROBABILITIES), fold)


def require_all_predicted(outcome: RunOutcome, fold: int | str) -> None:
    """Refuses to go on without a held-out case.

    Raises:
        CaseNotPredictedError: if one could not be predicted.
    """
    if outcome.failed:
        raise CaseNotPredictedError(
            f"Every validation case must be predicted; {len(outcome.failed)} of fold {fold} failed: "
            + "; ".join(f"{name}: {message}" for name, message in outcome.failed.items())
        )


def held_out_by_fold(
    folds: Sequence[int | str], folders: Sequence[Path], splits: Sequence[Split], patients: str | None
) -> dict[int | str, list[str]]:
    """The validation cases of each fold, by name; warns if patients are not known and names look as if they mattered.

    Args:
        folds: numbers, or "all".
        folders: of the models whose members predict them.
        splits: one entry per fold.
        patients: pattern whose group is the patient in a case's name; None counts each case as a patient.

    Raises:
        TrainedOnError, ValueError: see `held_out_cases`.
    """
    found = {
        fold: held_out_cases(fold, splits, [folder / f"fold_{fold}" for folder in folders], patients)
        for fold in folds
    }
    if patients is None:
        warn_of_unknown_patients(splits)
    return found


def require_disjoint(held_out: Mapping[int | str, Sequence[str]]) -> None:
    """Refuses folds of which two hold out the same case: it would count twice, and on both sides of a left-out fold.

    Raises:
        ValueError: if so.
    """
    if shared := case_of_two_folds(held_out):
        case, first, second = shared
        raise ValueError(
            f"One fold must hold out each case; {case} is held out by fold {first} and fold {second}. Choose "
            f"folds of different cases with -f."
        )


def patients_of(held_out: Mapping[Any, Sequence[str]], pattern: str | None) -> list[str]:
    """The patient of each held-out case of all folds; each case is one without a pattern."""
    return [patient_of(case, pattern) for names in held_out.values() for case in names]


def warn_of_unknown_patients(splits: Sequence[Split]) -> None:
    """Warns if names look as if several cases belonged to one patient; that may be wrong, so nothing is refused."""
    found = cases_of_one_name(case for split in splits for side in ("train", "val") for case in split[side])
    if found:
        first, second, *_ = next(iter(found.values()))
        logger.warning(
            "Without --patients each case counts as its own patient; some names look otherwise, such as "
            "%s and %s. If they are of one patient, members may be tested on patients that they were trained on, and "
            "all intervals are too narrow: give --patients '%s', or another pattern for the patient's name.",
            first,
            second,
            PATTERN_OF_SUCH_NAMES,
        )


def trained_folds(folder: Path, members: str) -> list[str]:
    """The folds of a model folder that have members."""
    folders = folders_with_members(folder, MemberRule.parse(members))
    return [path.name.removeprefix("fold_") for path in folders]


def folds_of_all(folders: Sequence[Path], members: str) -> list[str]:
    """The folds that have members in every model folder, in the order of the first."""
    first, *others = [trained_folds(folder, members) for folder in folders]
    return [fold for fold in first if all(fold in other for other in others)]


def folds_text(folders: Sequence[Path], members: str) -> str:
    """The folds of each model folder, for a message."""
    return "; ".join(f"{folder.name}: {' '.join(trained_folds(folder, members))}" for folder in folders)


def member_hashes(models: Sequence[Model]) -> list[dict[str, str]]:
    """Model, name and SHA-256 of each member."""
    return [
        {"model": model.folder.name, "name": member.name, "sha256": member.sha256}
        for model in models
        for member in model.members
    ]
