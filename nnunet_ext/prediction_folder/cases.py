"""Which files of a folder belong to which case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.files.atomic import PARTIAL_PREFIX
from nnunet_ext.files.listing import SIDE_FILE_PREFIX, visible_files

# What looks like an image to a person, whatever the dataset's own ending is.
IMAGE_ENDINGS = (
    *(".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".hdr", ".img", ".mgz", ".dcm"),
    *(".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg"),
)
SHOWN_FILES = 5


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
    files: dict[str, list[Path]] = {}
    for path in visible_files(folder):
        if match := channel_pattern(file_ending).fullmatch(path.name):
            files.setdefault(match[1], []).append(path)
    if not files:
        others = ", ".join(path.name for path in images_not_taken(folder, file_ending)[:SHOWN_FILES])
        raise FileNotFoundError(
            f"Images must be named CASE_0000{file_ending} (a four-digit channel before the ending that the model was "
            f"trained with); {folder} holds no such file{others and ', but '}{others}."
        )
    return [case_of(paths, file_ending, previous_stage_folder) for _, paths in sorted(files.items())]


def channel_pattern(file_ending: str) -> re.Pattern[str]:
    """Matches `CASE_0000<ending>`; the first group is the case."""
    return re.compile(rf"(.+)_\d{{4}}{re.escape(file_ending)}")


def images_not_taken(folder: Path, file_ending: str, *, label_maps: bool = False) -> list[Path]:
    """Files that look like images, but belong to no case because of their names; side files are not listed.

    Args:
        folder: of images, or of label maps.
        file_ending: of the dataset.
        label_maps: whether the names of cases are `CASE<ending>` instead of `CASE_0000<ending>`.
    """
    endings = (*IMAGE_ENDINGS, file_ending.lower())
    taken = re.compile(rf".+{re.escape(file_ending)}") if label_maps else channel_pattern(file_ending)
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith(endings)
        and not path.name.startswith((PARTIAL_PREFIX, SIDE_FILE_PREFIX))
        and (path.name.startswith(".") or not taken.fullmatch(path.name))
    ]


def not_taken_lines(folder: Path, file_ending: str) -> list[str]:
    """What to tell about files of a folder of images that became no case; nothing if there are none."""
    left_out = [path.name for path in images_not_taken(folder, file_ending)]
    side_files = [path.name for path in folder.glob(f"{SIDE_FILE_PREFIX}*{file_ending}")]
    lines = []
    if left_out:
        lines.append(
            f"{len(left_out)} not taken, because images are named CASE_0000{file_ending}: {', '.join(left_out)}"
        )
    if side_files:
        lines.append(f"{len(side_files)} skipped as side files of macOS, such as {min(side_files)}")
    return lines


def segmented_cases(folder: Path, file_ending: str) -> set[str]:
    """The cases that have a segmentation in a prediction folder; none if the folder does not exist."""
    if not folder.is_dir():
        return set()
    return {
        path.name.removesuffix(file_ending)
        for path in visible_files(folder)
        if path.name.endswith(file_ending) and path.is_file()
    }


def case_of(files: list[Path], file_ending: str, previous_stage_folder: Path | None = None) -> Case:
    """The case of some channel files, named after the first of them as nnU-Net does."""
    name = files[0].name[: -len(f"_0000{file_ending}")]
    previous = previous_stage_folder / f"{name}{file_ending}" if previous_stage_folder else None
    return Case(name, tuple(files), previous)
