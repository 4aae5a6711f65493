"""What a model folder says about itself: `plans.json` and `dataset.json`. Torch is not imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def model_description(folder: Path, *, advice: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """The plans and the description of the dataset of a model folder.

    Args:
        folder: `TRAINER__PLANS__CONFIGURATION`.
        advice: what else to do if it is none, for the message.

    Raises:
        FileNotFoundError: if one of the files does not exist.
    """
    files = folder / "plans.json", folder / "dataset.json"
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"A model folder must hold plans.json, dataset.json and fold_X folders, as nnUNetv2_train leaves it; "
                f"{file} does not exist. Check -m (or -d, -tr, -p and -c).{advice and ' '}{advice}"
            )
    plans, dataset_json = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    return plans, dataset_json
