"""The training cases of a dataset, in nnU-Net's folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2.utilities.utils import (
    get_filenames_of_train_images_and_targets,
    get_identifiers_from_splitted_dataset_folder,
)

from nnunet_ext import splits
from nnunet_ext.descriptions import read_description, require_keys


def variable_folder(name: str) -> Path:
    """The folder of one of nnU-Net's environment variables.

    Raises:
        ValueError: if it is not set.
    """
    value = os.environ.get(name)
    if not value:
        raise ValueError(
            f"Training cases and splits are read from nnU-Net's folders, so {name} must be set; it is not. Export it "
            f"first."
        )
    return Path(value)


def raw_folder(dataset: str) -> Path:
    """The folder of a dataset in `nnUNet_raw`.

    Args:
        dataset: its full name.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if the variable is not set.
    """
    folder = variable_folder("nnUNet_raw") / dataset
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Training cases are read from the raw dataset; {folder} does not exist. Set nnUNet_raw to the folder "
            f"that holds {dataset}."
        )
    return folder


def splits_file(dataset: str) -> Path:
    """`splits_final.json` of a dataset in `nnUNet_preprocessed`, which may not exist yet.

    Raises:
        ValueError: if the variable is not set.
    """
    return variable_folder("nnUNet_preprocessed") / dataset / splits.FILE_NAME


def training_files(dataset: str, dataset_json: dict[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Case to its "images" and "label".

    Args:
        dataset: its full name.
        dataset_json: the dataset's description.

    Raises:
        FileNotFoundError: if the raw dataset does not exist.
        ValueError: if the variable is not set.
    """
    files = get_filenames_of_train_images_and_targets(str(raw_folder(dataset)), dataset_json)
    return {case: of_case for case, of_case in files.items() if not case.startswith(".")}  # side files of macOS


def case_names(dataset: str) -> list[str]:
    """The names of all training cases, as the splits have them, sorted.

    Raises:
        FileNotFoundError: if the raw dataset or its `dataset.json` does not exist, or it has no training case.
        ValueError: if the variable is not set, or `dataset.json` lacks the ending of the files.
    """
    folder = raw_folder(dataset)
    description = folder / "dataset.json"
    if not description.is_file():
        raise FileNotFoundError(
            f"A raw dataset must hold dataset.json; {description} does not exist. Write it as nnU-Net describes."
        )
    content = read_description(description)
    if "dataset" in content:  # names and files are listed
        return sorted(content["dataset"])
    require_keys(content, description, ["file_ending"])
    images, ending = folder / "imagesTr", content["file_ending"]
    names = get_identifiers_from_splitted_dataset_folder(str(images), ending) if images.is_dir() else []
    if not len(names):
        raise FileNotFoundError(
            f"A dataset must have training cases; found none in {images} with the ending {ending} of dataset.json."
        )
    return sorted(str(name) for name in names if not name.startswith("."))
