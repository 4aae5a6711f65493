"""The training cases that set the ranges of an int8 network, and the held-out ones that it is judged on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nnunet_ext.calibration.held_out_cases import held_out_cases
from nnunet_ext.commands.training_data import TrainingData
from nnunet_ext.deployment.int8 import Int8Cases, LabelledCase

CALIBRATION_CASES = 10
HELD_OUT_CASES = 20


def int8_cases(model_folder: Path, fold: str) -> Int8Cases:
    """The first training and validation cases of a fold.

    Args:
        model_folder: a `TRAINER__PLANS__CONFIGURATION` folder.
        fold: its folder's name, `fold_0`.

    Raises:
        TrainedOnError: if a validation case was trained on, or the fold was trained on all cases.
        FileNotFoundError: if images or splits are not there.
        ValueError: if nnU-Net's variables are not set, or the splits have no such fold.
    """
    number = fold.removeprefix("fold_")
    data = TrainingData.open(model_folder, None)
    held_out = held_out_cases(number, data.splits, [model_folder / fold])
    trained = data.splits[int(number)]["train"]
    return Int8Cases(
        labelled(data, sorted(trained)[:CALIBRATION_CASES]), labelled(data, sorted(held_out)[:HELD_OUT_CASES])
    )


def labelled(data: TrainingData, names: Iterable[str]) -> list[LabelledCase]:
    """The files of cases."""
    return [LabelledCase(name, data.case(name, None).files, Path(data.files[name]["label"])) for name in names]
