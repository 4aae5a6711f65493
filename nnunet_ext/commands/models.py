"""`nnunet_ext models`: the trained models of a dataset."""

from __future__ import annotations

from pathlib import Path

from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunet_ext.models.trained import TrainedModel, trained_models


def models_of_dataset(dataset: str) -> tuple[Path, list[TrainedModel]]:
    """The folder of a dataset in `nnUNet_results`, and its trained models.

    Raises:
        RuntimeError, ValueError, TypeError: from nnU-Net, for a dataset that it does not know.
    """
    folder = Path(get_output_folder(dataset, "TRAINER", "PLANS", "CONFIGURATION")).parent
    return folder, trained_models(folder)


def model_lines(models: list[TrainedModel]) -> list[str]:
    """A table for the terminal, one row per model."""
    rows = [("model", "folds", "unfinished", "samples", "calibrated")]
    rows += [
        (
            model.flags,
            " ".join(model.folds) or "-",
            " ".join(model.unfinished) or "-",
            str(model.samples or "-"),
            "yes" if model.is_calibrated else "-",
        )
        for model in models
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
