"""What to tell about the images of a folder that keeps no case from being predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunet_ext.input_checks.pictures import STACK_READER, spacing_file, spacing_is_known
from nnunet_ext.input_checks.reading import DEFAULT_READERS
from nnunet_ext.prediction_folder.cases import Case, not_taken_lines


def image_remarks(folder: Path, cases: Sequence[Case], file_ending: str, reader: str | None) -> list[str]:
    """Files that became no case, and stacks whose spacing is not known; nothing if there are none.

    Args:
        folder: of the images.
        cases: its cases.
        file_ending: of the dataset.
        reader: name of nnU-Net's class that reads them; None for the one that nnU-Net chooses for the ending.
    """
    lines = not_taken_lines(folder, file_ending)
    known = reader or DEFAULT_READERS.get(file_ending.lower(), "")
    unknown = [case.files[0] for case in cases if not spacing_is_known(case.files[0], known, is_label_map=False)]
    if unknown and known == STACK_READER:  # of pictures it is never known
        first = unknown[0]
        lines.append(
            f"{len(unknown)} of {len(cases)} cases without a known spacing, which counts as 1 mm: there is no "
            f"{spacing_file(first, is_label_map=False).name} beside {first.name}"
        )
    return lines
