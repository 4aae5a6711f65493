"""The flag `--weights`: numbers, or a file of weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


def model_weights(texts: Sequence[str] | None, folders: Sequence[str]) -> list[float] | None:
    """`--weights` as one number per model, given directly or as one JSON file with a list or an object by folder.

    None if there are none, or the file is one of `nnunet_ext weights`.

    Raises:
        ValueError: if it is neither.
    """
    if texts is None or class_weights(texts) is not None:
        return None
    if len(texts) == 1 and Path(texts[0]).is_file():
        content = json.loads(Path(texts[0]).read_text(encoding="utf-8"))
        if isinstance(content, dict):
            missing = [folder for folder in map(str, folders) if folder not in content]
            if missing:
                raise ValueError(
                    f"{texts[0]} must have a weight for every -m folder; it lacks {', '.join(missing)}. Add it, or "
                    f"give the file that nnunet_ext weights wrote."
                )
            content = [content[folder] for folder in map(str, folders)]
        texts = content
    try:
        return [float(text) for text in texts]
    except (TypeError, ValueError) as error:
        raise ValueError(f"--weights must be numbers or a JSON file with numbers; found {texts}.") from error


def class_weights(texts: Sequence[str] | None) -> Path | None:
    """The file that `nnunet_ext weights` wrote, if `--weights` names one."""
    from nnunet_ext.calibration.ensemble_weights import holds_ensemble_weights

    if texts is None or len(texts) != 1 or not Path(texts[0]).is_file():
        return None
    content = json.loads(Path(texts[0]).read_text(encoding="utf-8"))
    return Path(texts[0]) if holds_ensemble_weights(content) else None
