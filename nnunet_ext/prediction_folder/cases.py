"""Which files of a folder belong to which case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.files.atomic import PARTIAL_PREFIX


@dataclass(frozen=True)
class Case:
    """One case: its name, the files of its channels, and the previous stage's segmentation of a cascade."""

    name: str
    files: tuple[Path, ...]
    previous_stage: Path | None = None


def cases_from(
    source: str | Path | Sequence[Sequence[str]], file_ending: str, previous_stage_folder: str | Path | None = None
) -> list[Case]:
    """The cases of a folder, see `find_cases`, or of a list with the channel files of each case."""
    previous = Path(previous_stage_folder) if previous_stage_folder else None
    if isinstance(source, (str, Path)):
        return find_cases(Path(source), file_ending, previous)
    return [case_of([Path(file) for file in files], file_ending, previous) for files in source]


def find_cases(folder: Path, file_ending: str, previous_stage_folder: Path | None = None) -> list[Case]:
    """The cases of a folder whose files are named `CASE_0000<ending>`, sorted by name.

    Raises:
        FileNotFoundError: if the folder does not exist, or holds no such file.
        NotADirectoryError: if it is a file.
    """
    if folder.is_file():
        raise NotADirectoryError(
            f"Images are read from a folder; {folder} is a file. Give the folder that contains it."
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"The input folder must exist; {folder} does not. Correct the path.")
    pattern = re.compile(rf"(.+)_\d{{4}}{re.escape(file_ending)}")
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = pattern.fullmatch(path.name)
        if match and not path.name.startswith(PARTIAL_PREFIX):
            files.setdefault(match[1], []).append(path)
    if not files:
        raise FileNotFoundError(
            f"Images must be named CASE_0000{file_ending} (a four-digit channel before the ending that the model was "
            f"trained with); {folder} holds no such file."
        )
    return [case_of(paths, file_ending, previous_stage_folder) for _, paths in sorted(files.items())]


def segmented_cases(folder: Path, file_ending: str) -> set[str]:
    """The cases that have a segmentation in a prediction folder; none if the folder does not exist."""
    if not folder.is_dir():
        return set()
    return {
        path.name.removesuffix(file_ending)
        for path in folder.iterdir()
        if path.name.endswith(file_ending) and not path.name.startswith(PARTIAL_PREFIX) and path.is_file()
    }


def case_of(files: list[Path], file_ending: str, previous_stage_folder: Path | None = None) -> Case:
    """The case of some channel files, named after the first of them as nnU-Net does."""
    name = files[0].name[: -len(f"_0000{file_ending}")]
    previous = previous_stage_folder / f"{name}{file_ending}" if previous_stage_folder else None
    return Case(name, tuple(files), previous)
