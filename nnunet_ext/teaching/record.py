"""Which members taught which cases, and that none of them had seen a case that they teach."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunet_ext.files.atomic import write_json
from nnunet_ext.teaching.case_file import case_file

FILE_NAME = "teacher.json"
TOGETHER = "together"  # in place of a fold's number: members of several folds, who teach cases without labels
OUT_OF_FOLD = "Run nnunet_ext teach; folds that hold the cases out must have been trained."
WITHOUT_LABELS = "Run nnunet_ext teach --unlabelled."


class TeacherError(ValueError):
    """Probabilities of a teacher that are missing, of another form, or of members that had seen the case."""


@dataclass(frozen=True)
class TaughtFold:
    """The cases that the members of one fold teach, or those of several folds together.

    Attributes:
        members: model, name and SHA-256 of each member.
        cases: that they teach.
        trained_on: the cases that they were trained on.
    """

    members: Sequence[Mapping[str, str]]
    cases: Sequence[str]
    trained_on: Sequence[str]


@dataclass(frozen=True)
class TeacherRecord:
    """What lies beside the files of the cases.

    Attributes:
        outputs: of the networks, with the background.
        regions: whether the outputs are regions.
        top: see `packed`.
        settings: of the ensemble, see `EnsembleEngine.settings`.
        folds: number of a fold, or `TOGETHER`, to what its members teach.
    """

    outputs: int
    regions: bool
    top: int
    settings: Mapping[str, Any]
    folds: Mapping[str, TaughtFold] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, remedy: str = OUT_OF_FOLD) -> TeacherRecord:
        """The record of a folder.

        Args:
            folder: of the probabilities.
            remedy: sentence that says how they are written.

        Raises:
            TeacherError: if it has none, or a damaged one.
        """
        file = folder / FILE_NAME
        if not file.is_file():
            raise TeacherError(f"A teacher's probabilities need their record; {file} does not exist. {remedy}")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            folds = {fold: TaughtFold(**taught) for fold, taught in content.pop("folds").items()}
            return cls(**content, folds=folds)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TeacherError(f"{file} is damaged ({error}). Remove {folder}, and teach again.") from error

    def save(self, folder: Path) -> None:
        """Writes the record, completely or not at all."""
        write_json(asdict(self), folder / FILE_NAME)

    def with_fold(self, fold: str, taught: TaughtFold) -> TeacherRecord:
        """The record with one more fold, or with what several folds teach together.

        Raises:
            TeacherError: if other members taught these cases, or one of the members had seen a case that it teaches.
        """
        known = self.folds.get(fold)
        if known is not None and members_of(known) != members_of(taught):
            raise TeacherError(
                f"All cases of a fold must have the same teacher, and all cases without labels; {named(fold)} had "
                f"{', '.join(names_of(known))}, and now it would be {', '.join(names_of(taught))}, of which a file "
                f"or its content is another. Start again with --overwrite."
            )
        record = replace(self, folds={**self.folds, fold: taught})
        record.require_unseen(taught.cases)
        return record

    def fold_of(self, case: str) -> str | None:
        """The fold whose members teach a case, or `TOGETHER`; None if none does."""
        return next((fold for fold, taught in self.folds.items() if case in taught.cases), None)

    def require_unseen(self, cases: Iterable[str]) -> None:
        """Refuses a teacher that was trained on one of these cases.

        Raises:
            TeacherError: if so.
        """
        seen = [
            case for case in cases for taught in self.folds.values() if case in {*taught.cases} & {*taught.trained_on}
        ]
        if seen:
            raise TeacherError(
                f"A teacher must never have seen the case that it teaches; the record lists {len(seen)} that its "
                f"members were trained on, such as {seen[0]} of {named(self.fold_of(seen[0]))}. Teach again with the "
                f"splits that the training used."
            )

    def require_taught(self, folder: Path, cases: Iterable[str], remedy: str = OUT_OF_FOLD) -> None:
        """Refuses cases without probabilities of members that had not seen them.

        Args:
            folder: of the probabilities.
            cases: names.
            remedy: sentence that says how they are written.

        Raises:
            TeacherError: if there are any.
        """
        wanted = sorted(set(cases))
        missing = [case for case in wanted if self.fold_of(case) is None or not case_file(folder, case).is_file()]
        if missing:
            raise TeacherError(
                f"Every case that is trained on or validated needs its teacher's probabilities in {folder}; "
                f"{len(missing)} of {len(wanted)} have none, such as {missing[0]}. {remedy}"
            )
        self.require_unseen(wanted)


def named(fold: str | None) -> str:
    """A key of the record, for a message."""
    return "the cases without labels" if fold == TOGETHER else f"fold {fold}"


def members_of(taught: TaughtFold) -> list[tuple[str, str, str]]:
    """The members in a form that can be compared."""
    return sorted((member["model"], member["name"], member["sha256"]) for member in taught.members)


def names_of(taught: TaughtFold) -> list[str]:
    """The members' names."""
    return [f"{member['model']}/{member['name']}" for member in taught.members]
