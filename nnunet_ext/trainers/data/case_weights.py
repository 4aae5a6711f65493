"""Weights per case from a table: how often a case is loaded, and how much its errors count.

For synthetic and pseudo-labelled cases, which a training should see less often, or believe less.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss, SoftDiceLoss
from torch import nn

from nnunet_ext.losses.case_weighted import CaseWeightedLoss, CaseWeighting
from nnunet_ext.trainers.base import ExtTrainer

FILE_NAME = "case_weights.csv"  # in nnUNet_preprocessed/DATASET
COLUMNS = ("case", "sampling", "loss")
COPIES = 20  # of a case on average in the list that nnU-Net's loader draws from; weights are rounded to as much


@dataclass(frozen=True)
class CaseWeight:
    """What the table says of a case.

    Attributes:
        sampling: how often it is loaded, against 1 for a case that the table lacks; 0 never.
        loss: how much its part of the loss counts in a batch.
    """

    sampling: float = 1.0
    loss: float = 1.0


class CaseWeights(ExtTrainer):
    """Reads `case_weights.csv` beside the dataset's plans: columns case, sampling, loss.

    Raises:
        FileNotFoundError: when the training begins, if there is no such file.
        ValueError: if it cannot be read, or names a case that the dataset lacks.
    """

    case_weights: Mapping[str, CaseWeight] = MappingProxyType({})  # of the table, once the training begins

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        training, validation = super().get_tr_and_val_datasets()
        file = Path(self.preprocessed_dataset_folder_base) / FILE_NAME
        self.case_weights = read_case_weights(file)
        known = self.dataset_class.get_identifiers(self.preprocessed_dataset_folder)
        unknown = sorted(set(self.case_weights) - set(known))
        if unknown:
            raise ValueError(f"{file} must name cases of the dataset; found {', '.join(unknown)}. Correct the names.")
        if any(weight.loss != 1 for weight in self.case_weights.values()):
            self.use_dice_of_each_sample()
        training.identifiers = repeated(training.identifiers, self.case_weights)
        self.print_to_log_file(
            f"{FILE_NAME}: {len(set(training.identifiers))} cases are loaded, of which "
            f"{len(set(training.identifiers) & set(self.case_weights))} have weights of their own."
        )
        return training, validation

    def loss_of_one_output(self, planned: nn.Module) -> CaseWeightedLoss:
        """The loss of other parts, sample by sample; nnU-Net's deep supervision stays around it."""
        return CaseWeightedLoss(super().loss_of_one_output(planned))

    def use_dice_of_each_sample(self) -> None:
        """Computes nnU-Net's Dice of each sample in all batches, also where the plans ask for Dice of the batch.

        Dice of the batch waits for all processes of DDP, which would wait forever for one that calls it more often.
        """
        for module in self.loss.modules():
            if isinstance(module, (SoftDiceLoss, MemoryEfficientSoftDiceLoss)):
                module.batch_dice = False

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.set_weights(tuple(self.case_weights.get(case, CaseWeight()).loss for case in batch["keys"]))
        try:
            return super().train_step(batch)
        finally:
            self.set_weights(())  # validation counts every case alike

    def set_weights(self, weights: tuple[float, ...]) -> None:
        """Gives all parts of the loss the weights of the next batch."""
        for module in self.loss.modules():
            if isinstance(module, CaseWeighting):
                module.case_weights = weights


def read_case_weights(file: Path) -> dict[str, CaseWeight]:
    """The table by case.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if its columns are others, a case stands twice, or a weight is no finite number of at least 0.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"CaseWeights needs a table with the columns {', '.join(COLUMNS)}; {file} does not exist. Write it, or "
            f"train without CaseWeights."
        )
    with file.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f"{file} must have the columns {', '.join(COLUMNS)}; found {', '.join(reader.fieldnames or ())}."
            )
        weights: dict[str, CaseWeight] = {}
        for row in reader:
            if row["case"] in weights:
                raise ValueError(f"{file} must have one row per case; found two of {row['case']}. Leave one out.")
            weights[row["case"]] = CaseWeight(
                *(weight_of(row[column], f"{column} of {row['case']} in {file}") for column in COLUMNS[1:])
            )
    return weights


def weight_of(text: str | None, what: str) -> float:
    """A weight from a cell of the table; `what` names it in a refusal."""
    try:
        weight = float(text or "")
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise ValueError(f"{what} must be a finite number of at least 0; found {text!r}.")
    return weight


def repeated(cases: Iterable[str], weights: Mapping[str, CaseWeight]) -> list[str]:
    """Each case as often as its weight asks for, sorted; nnU-Net's loader draws from such a list.

    Args:
        cases: that are trained on; those that stand several times, as with Bagging, count several times.
        weights: by case; 1 for those without.

    Raises:
        ValueError: if all weights are 0.
    """
    listed = sorted(cases)
    sampling = [weights.get(case, CaseWeight()).sampling for case in listed]
    if len(set(sampling)) <= 1 and sum(sampling) > 0:
        return listed
    mean = sum(sampling) / len(sampling) if sampling else 0
    if not mean:
        raise ValueError(
            "At least one case that is trained on must have a sampling weight above 0; found none. Correct the table."
        )
    copies = [math.ceil(COPIES * weight / mean) for weight in sampling]
    return [case for case, number in zip(listed, copies, strict=True) for _ in range(number)]
