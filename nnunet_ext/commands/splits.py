"""What `nnunet_ext splits` does: writes a cross-validation by patient, or checks the existing one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunet_ext.commands.training_cases import case_names, splits_file
from nnunet_ext.evaluation.error_analysis import read_columns
from nnunet_ext.files.atomic import write_json
from nnunet_ext.options import SplitOptions
from nnunet_ext.patients import patient_of
from nnunet_ext.splits import (
    SharedPatient,
    Split,
    complete_folds,
    read_splits,
    shared_patients,
    splits_by_patient,
    with_fewer_cases,
)


@dataclass(frozen=True)
class SplitReport:
    """What was written or checked.

    Attributes:
        file: file of the splits.
        lines: text for the terminal.
        by_patient: whether no patient is on both sides of a fold.
    """

    file: Path
    lines: Sequence[str]
    by_patient: bool


def write_splits(options: SplitOptions) -> SplitReport:
    """Writes splits by patient to where nnU-Net looks for them; with `cases`, adds folds to those that are there.

    Args:
        options: options of the command.

    Raises:
        FileExistsError: if there are splits already and overwriting is not allowed: trained folds depend on them.
        FileNotFoundError: if the dataset is not in `nnUNet_raw`.
        ValueError: if the pattern of the patients does not match a case, there are fewer patients than folds, the
            table of groups does not match the cases, or folds with so few cases cannot be made.
    """
    dataset = maybe_convert_to_dataset_name(options.dataset)
    file = splits_file(dataset)
    lines: list[str] = []
    if options.cases is not None and file.exists() and not options.overwrite:
        if options.balance or options.folds != SplitOptions.folds:
            raise ValueError(
                f"--folds and --balance make new splits, and --cases keeps those that are there; {file} exists. "
                f"Leave them out, or replace the splits with --overwrite."
            )
        found = read_splits(file)
    else:
        found = new_splits(options, dataset, file)
    if options.cases is not None:
        found, lines = with_subsets(found, options)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(found, file)
    lines = [*split_lines(found, options.patients), "", *lines, f"Saved to {file}"]
    return SplitReport(file, lines, by_patient=True)


def new_splits(options: SplitOptions, dataset: str, file: Path) -> list[Split]:
    """A cross-validation by patient; see `write_splits`."""
    if file.exists() and not options.overwrite:
        raise FileExistsError(
            f"Trained folds depend on their splits, so splits are not replaced without --overwrite; {file} "
            f"exists. {_what_is_there(file, options.patients)} Retrain all folds after --overwrite."
        )
    patients = {case: patient_of(case, options.patients) for case in case_names(dataset)}
    groups = groups_of(patients, options.balance) if options.balance else None
    return [*splits_by_patient(patients, folds=options.folds, seed=options.seed, groups=groups)]


def with_subsets(splits: Sequence[Split], options: SplitOptions) -> tuple[list[Split], list[str]]:
    """The splits and, after them, each complete fold with fewer training cases; and a line per such fold.

    Folds that are there already are not added again.

    Raises:
        ValueError: if the splits are not by patient, or a fold cannot have so few or so many cases.
    """
    if any(shared_by_fold(splits, options.patients)):
        raise ValueError(
            "Subsets by patient need splits by patient; these have patients on both sides of a fold. --check shows "
            "them, --overwrite replaces the splits."
        )
    complete = complete_folds(splits)
    if not complete:
        raise ValueError(
            "No fold has all cases of the splits, so none can be reduced; replace them with --overwrite."
        )
    patients = {case: patient_of(case, options.patients) for split in splits for case in split["train"]}
    extended, lines = [*splits], []
    for fold in complete:
        subset = with_fewer_cases(splits[fold], patients, options.cases or 0, seed=options.seed)
        if subset not in extended:
            extended.append(subset)
        kept, all_cases = len(subset["train"]), len(splits[fold]["train"])
        lines.append(f"fold {extended.index(subset)} is fold {fold} with {kept} of its {all_cases} training cases")
    return extended, lines


def check_splits(options: SplitOptions) -> SplitReport:
    """Reports which patients are on both sides of a fold in the existing splits.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if they have another form, or the pattern of the patients does not match a case.
    """
    file = splits_file(maybe_convert_to_dataset_name(options.dataset))
    if not file.is_file():
        raise FileNotFoundError(
            f"There must be splits to check; {file} does not exist. nnU-Net writes it, by case, when the first fold "
            f"is trained. Without --check this command writes splits by patient."
        )
    found = read_splits(file)
    shared = shared_by_fold(found, options.patients)
    lines = [*split_lines(found, options.patients), ""]
    for fold, patients in enumerate(shared):
        lines += [
            f"fold {fold}: {one.patient} is held out with {', '.join(one.held_out)} and trained on with "
            f"{', '.join(one.trained)}"
            for one in patients
        ]
    if any(shared):
        lines += ["", "Write splits by patient with --overwrite instead of --check, and retrain all folds."]
    else:
        lines.append("No patient is on both sides of a fold.")
    return SplitReport(file, lines, by_patient=not any(shared))


def shared_by_fold(splits: Sequence[Split], pattern: str) -> list[list[SharedPatient]]:
    """The patients on both sides of each fold."""
    return [shared_patients(split["train"], split["val"], pattern) for split in splits]


def split_lines(splits: Sequence[Split], pattern: str) -> list[str]:
    """How many cases and patients each fold has."""
    lines = ["fold  cases held out  patients  cases trained on  patients"]
    for fold, split in enumerate(splits):
        held_out, trained = (len({patient_of(case, pattern) for case in split[side]}) for side in ("val", "train"))
        lines.append(f"{fold:4}  {len(split['val']):14}  {held_out:8}  {len(split['train']):16}  {trained:8}")
    return lines


def groups_of(cases: Collection[str], table_and_column: str) -> dict[str, str]:
    """Case to its cell in the column that `--balance FILE:COLUMN` names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the text has another form, or the table lacks the column or a case.
    """
    file, separator, column = table_and_column.rpartition(":")  # a Windows path has a colon of its own
    if not separator or not file or not column:
        raise ValueError(f"--balance takes FILE:COLUMN, such as patients.csv:group; found {table_and_column!r}.")
    columns = read_columns(file)
    if column not in columns:
        raise ValueError(f"{file} must have the column {column}; it has {', '.join(columns) or 'none besides case'}.")
    missing = sorted(set(cases) - columns[column].keys())
    if missing:
        raise ValueError(
            f"Every training case needs a value in the column {column} of {file}; {len(missing)} have none, such as "
            f"{missing[0]}. Add them."
        )
    return {case: columns[column][case] for case in cases}


def _what_is_there(file: Path, pattern: str) -> str:
    shared = [one for patients in shared_by_fold(read_splits(file), pattern) for one in patients]
    if not shared:
        return "No patient is on both sides of a fold in it."
    first, count = shared[0], len({one.patient for one in shared})
    return (
        f"Patients on both sides of a fold in it: {count}, such as {first.patient} ({first.trained[0]} is trained "
        f"on while {first.held_out[0]} is held out); --check shows all."
    )
