"""`dataset.json` and `plans.json`, read with a message that names the file and what it lacks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OF_DATASET = ("channel_names", "labels", "file_ending")
OF_PLANS = ("configurations", "image_reader_writer", "transpose_forward", "transpose_backward")
OLD_NAMES = {"channel_names": "modality"}  # nnU-Net v2 still reads them


def read_description(file: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """The content of a description.

    Args:
        file: `dataset.json` or `plans.json`; it must exist.
        needed: keys that it must have.

    Raises:
        ValueError: if it is not a JSON object, or lacks a key.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"{file} must be JSON; it is damaged or something else ({error}). Copy it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must be a JSON object; found {type(content).__name__}. Copy it again.")
    require_keys(content, file, needed)
    return content


def require_keys(content: Mapping[str, Any], file: Path, needed: Sequence[str]) -> None:
    """Refuses a description that lacks keys.

    Raises:
        ValueError: if so; the message says if the file looks like one of nnU-Net v1.
    """
    missing = [key for key in needed if key not in content and OLD_NAMES.get(key) not in content]
    if not missing:
        return
    remedy = "Add what is missing, or copy the file again."
    if "modality" in content and "file_ending" not in content:
        remedy = (
            "It looks like a file of nnU-Net v1: take the one that nnU-Net v2 wrote beside the model, or convert the "
            "dataset with nnUNetv2_convert_old_nnUNet_dataset."
        )
    found = ", ".join(content) or "nothing"
    raise ValueError(f"{file.name} must have {' and '.join(missing)}; {file} has {found}. {remedy}")


def channels_of(dataset_json: Mapping[str, Any]) -> Any:
    """The channels of an image as `dataset.json` has them, number to name; empty if it names none."""
    return dataset_json.get("channel_names") or dataset_json.get(OLD_NAMES["channel_names"]) or {}
