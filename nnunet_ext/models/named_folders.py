"""Which model folders the flags name. Light: torch is not imported."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2.utilities.file_path_utilities import get_output_folder


def model_folders(arguments: argparse.Namespace) -> list[Path]:
    """The model folders that -m names, or -d with -tr, -p and -c.

    Raises:
        ValueError: if both or neither are given.
    """
    by_dataset = arguments.d is not None or arguments.c is not None
    if bool(arguments.m) == by_dataset or (by_dataset and None in (arguments.d, arguments.c)):
        raise ValueError(
            f"The model is named either by -m FOLDER or by -d DATASET and -c CONFIGURATION (with -tr and -p); found "
            f"-m {arguments.m}, -d {arguments.d}, -c {arguments.c}. Give one of the two."
        )
    if arguments.m:
        return [Path(folder) for folder in arguments.m]
    return [Path(get_output_folder(arguments.d, arguments.tr, arguments.p, arguments.c))]
