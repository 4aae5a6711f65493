"""Reads the plans and the dataset description of a model folder. Does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_ext.descriptions import read_description


def model_description(folder: Path, *, advice: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of `plans.json` and `dataset.json` of a model folder, in this order.

    Args:
        folder: a `TRAINER__PLANS__CONFIGURATION` folder.
        advice: a sentence for the end of the error message: what else to do if it is not a model folder.

    Raises:
        FileNotFoundError: if one of the two files does not exist.
        ValueError: if one of them is not a JSON object.
    """
    files = folder / "plans.json", folder / "dataset.json"
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"A model folder must hold plans.json, dataset.json and fold_X folders, as nnUNetv2_train leaves it; "
                f"{file} does not exist. Check -m (or -d, -tr, -p and -c).{advice and ' '}{advice}"
            )
    plans, dataset_json = (read_description(file) for file in files)
    return plans, dataset_json
