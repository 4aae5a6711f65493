"""What to tell about the files of an evaluation that keeps no case from being evaluated."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from nnunet_ext.input_checks.pictures import spacing_is_known
from nnunet_ext.prediction_folder.cases import images_not_taken

logger = logging.getLogger(__name__)


def warn_of_truths_not_taken(folder: Path, file_ending: str) -> None:
    """Warns of files that look like label maps, but have another ending than the dataset."""
    others = [path.name for path in images_not_taken(folder, file_ending, label_maps=True)]
    if others:
        logger.warning(
            "%s: %d not evaluated, because label maps are named CASE%s: %s",
            *(folder, len(others), file_ending, ", ".join(others)),
        )


def warn_of_unknown_spacing(pairs: Sequence[tuple[Path, Path]], reader: str) -> None:
    """Warns of cases whose distances and volumes are in voxels, because neither file says what its spacing is.

    Args:
        pairs: truth and prediction of each case.
        reader: name of nnU-Net's class that reads them.
    """
    unknown = [
        truth.name
        for truth, prediction in pairs
        if not any(spacing_is_known(file, reader, is_label_map=True) for file in (truth, prediction))
    ]
    if unknown:
        logger.warning(
            "No spacing is known of %d of %d cases, such as %s: what is called mm or ml counts a voxel as 1 mm wide.",
            *(len(unknown), len(pairs), unknown[0]),
        )
