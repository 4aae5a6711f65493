"""What `nnunet_ext pretrain` does: scans without labels to a preprocessed dataset, and a training on it."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from nnunet_ext import discovery
from nnunet_ext.commands.training_cases import variable_folder
from nnunet_ext.machine.devices import fastest_device, usable_device
from nnunet_ext.options.pretraining import BATCH_SIZES, PretrainOptions
from nnunet_ext.prediction_folder.cases import Case
from nnunet_ext.trainers.names import trainer_class
from nnunet_ext.trainers.own_steps import OwnStepsTrainer
from nnunet_ext.unlabelled.dataset import (
    TABLE,
    require_own_dataset,
    splits_of,
    summary_lines,
    write_description,
    write_splits,
    write_table,
)
from nnunet_ext.unlabelled.plans import adopted_plans, fixed_plans
from nnunet_ext.unlabelled.preprocess import Preparation, PreparedScan, prepare_scan
from nnunet_ext.unlabelled.scans import common_channels, common_ending, find_scans, masks_of

PRESET_WORDS = {"B": "", "L": "_PresetL"}


@dataclass(frozen=True)
class PretrainingData:
    """A preprocessed dataset of scans without labels.

    Attributes:
        dataset: full name.
        plans_name: of its plans.
        scans: what became of every scan.
        lines: text for the terminal.
    """

    dataset: str
    plans_name: str
    scans: Sequence[PreparedScan]
    lines: Sequence[str]


def prepare(options: PretrainOptions) -> PretrainingData:
    """Makes the dataset, or completes it: scans that were preprocessed before are kept.

    Raises:
        FileNotFoundError: if there are no scans, no plans, or no masks in a folder that should have them.
        ValueError: if the dataset has other data or other plans, the plans need another number of channels, or fewer
            than two patients remain.
    """
    dataset = dataset_name(options.dataset)
    ending = options.file_ending or common_ending(options.images)
    scans = find_scans(options.images, ending)
    plans = plans_for(options, dataset, common_channels(scans), ending)
    configuration = PlansManager(plans).get_configuration(options.configuration)
    channels = len(configuration.normalization_schemes)
    folder = variable_folder("nnUNet_preprocessed") / dataset
    raw = os.environ.get("nnUNet_raw")  # noqa: SIM112 - nnU-Net's spelling
    masks = masks_of(scans, options.removed, ending) if options.removed is not None else {}
    require_own_dataset(folder, Path(raw) / dataset if raw else None, plans, removed_regions=bool(masks))
    write_description(folder, plans, channels=channels, file_ending=ending, removed_regions=bool(masks))
    cases = folder / configuration.data_identifier
    cases.mkdir(exist_ok=True)
    preparation = Preparation(cases, plans, options.configuration, channels, ending, options.scan_filter, masks)
    prepared = prepare_all(scans, preparation, options.processes, allow_tqdm=options.allow_tqdm)
    write_table(prepared, folder / TABLE)
    splits = splits_of([scan.scan.name for scan in prepared if scan.dropped is None], options.patients)
    if options.trainer is not None and not 0 <= options.fold < len(splits):
        raise ValueError(f"-f must be a fold from 0 to {len(splits) - 1}; found {options.fold}. Choose one of them.")
    write_splits(folder, splits, continuing=options.continue_training)
    return PretrainingData(dataset, plans["plans_name"], prepared, summary_lines(prepared, folder / TABLE))


def plans_for(options: PretrainOptions, dataset: str, channels: int, file_ending: str) -> dict[str, Any]:
    """The plans that the options ask for."""
    if options.plans is not None:
        return adopted_plans(
            options.plans,
            dataset,
            options.configuration,
            batch_size=options.batch_size,
            file_ending=file_ending,
        )
    batch_size = options.batch_size or BATCH_SIZES[options.preset]
    return fixed_plans(dataset, options.fixed, channels=channels, batch_size=batch_size, file_ending=file_ending)


def prepare_all(
    scans: Sequence[Case], preparation: Preparation, processes: int, *, allow_tqdm: bool
) -> list[PreparedScan]:
    """Prepares the scans, several at a time, in their order."""
    work: Callable[[Case], PreparedScan] = partial(prepare_scan, preparation=preparation)
    bar = partial(tqdm, total=len(scans), unit="scan", desc="preprocessing", disable=not allow_tqdm)
    if processes == 1:
        return list(bar(map(work, scans)))
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawned) as pool:
        return list(bar(pool.map(work, scans)))


def dataset_name(text: str) -> str:
    """The full name for a name or an id; an id without a dataset gets the name Dataset<id>_Pretraining.

    Raises:
        ValueError: if it is neither, or the id has several datasets.
    """
    if re.fullmatch(r"Dataset\d{3}_\w+", text):
        return text
    if not re.fullmatch(r"\d{1,3}", text):
        raise ValueError(f"-d takes an id from 1 to 999 or a name such as Dataset900_Scans; found {text!r}.")
    known = list(map(str, find_candidate_datasets(int(text))))
    if len(known) > 1:
        raise ValueError(f"The id {text} has several datasets: {', '.join(known)}. Give the full name.")
    return known[0] if known else f"Dataset{int(text):03d}_Pretraining"


def training_name(options: PretrainOptions) -> str:
    """The trainer's name with the word of the preset.

    Raises:
        TrainerNameError: if the name cannot be resolved.
        ValueError: if the trainer needs labels.
    """
    name = f"{options.trainer}{PRESET_WORDS[options.preset]}"
    if not issubclass(trainer_class(name), OwnStepsTrainer):
        raise ValueError(f"Scans without labels need a trainer such as nnUNetTrainerS3D; {name} needs labels.")
    return name


def train(options: PretrainOptions, data: PretrainingData) -> Path:
    """Trains on a prepared dataset, as `nnUNetv2_train` does; returns the folder of the training.

    Raises:
        ValueError: if the device is not there, or the trainer needs labels.
    """
    from nnunetv2.run.run_training import run_training

    discovery.activate()
    name = training_name(options)
    device = usable_device(torch.device(options.device)) if options.device else fastest_device()
    torch.set_num_threads(multiprocessing.cpu_count() if device.type == "cpu" else 1)  # as nnUNetv2_train does
    run_training(
        data.dataset,
        options.configuration,
        options.fold,
        name,
        data.plans_name,
        num_gpus=options.num_gpus,
        continue_training=options.continue_training,
        device=device,
    )
    model = f"{name}__{data.plans_name}__{options.configuration}"
    return variable_folder("nnUNet_results") / data.dataset / model / f"fold_{options.fold}"
