"""The class of nnU-Net that reads the label maps of a dataset."""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import redirect_stderr
from itertools import islice
from pathlib import Path
from typing import Any

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import (
    determine_reader_writer_from_dataset_json,
    recursive_find_reader_writer_by_name,
)

TRIED_FILES = 10


def reader_of(dataset_json: dict[str, Any], plans: dict[str, Any], examples: Iterable[Path]) -> BaseReaderWriter:
    """The reader that the plans name, as prediction uses it; without plans the one that nnU-Net would choose.

    nnU-Net then tries its readers on an example. One file that cannot be read says nothing about the dataset, so up
    to ten are tried, and if none can be read, the file ending alone decides.

    Args:
        dataset_json: content of `dataset.json`.
        plans: content of `plans.json`; empty if there are none.
        examples: label maps of the dataset.

    Raises:
        RuntimeError: if nnU-Net has no such reader, or none for the file ending.
    """
    if "image_reader_writer" in plans:
        return recursive_find_reader_writer_by_name(plans["image_reader_writer"])()
    for example in islice(examples, TRIED_FILES):
        try:
            with redirect_stderr(io.StringIO()):  # nnU-Net prints a trace for each reader that fails
                return determine_reader_writer_from_dataset_json(dataset_json, str(example), verbose=False)()
        except RuntimeError:
            continue
    return determine_reader_writer_from_dataset_json(dataset_json, None, verbose=False)()
