"""What `nnunet_ext check` does with its flags. No checkpoint is read, and torch is not imported."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from tqdm import tqdm

from nnunet_ext.input_checks import Finding, check_case
from nnunet_ext.input_checks.text import finding_lines
from nnunet_ext.models.named_folders import model_folders
from nnunet_ext.prediction_folder.cases import Case, find_cases

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Expected:
    """What the files of every case must be.

    Attributes:
        file_ending: of dataset.json.
        channels: how many dataset.json lists.
        reader: nnU-Net's class that will read them; None where only the ending decides.
    """

    file_ending: str
    channels: int
    reader: str | None


@dataclass(frozen=True)
class CheckReport:
    """What came of checking a folder.

    Attributes:
        findings: name of every case to what is wrong with it; nothing for a good one.
        lines: for a person.
    """

    findings: dict[str, list[Finding]]
    lines: list[str]

    @property
    def bad(self) -> list[str]:
        """Names of the cases with findings."""
        return [name for name, findings in self.findings.items() if findings]


def check_folder(arguments: argparse.Namespace) -> CheckReport:
    """Checks all cases of a folder as `predict` would before it predicts them.

    Args:
        arguments: the flags of `nnunet_ext check`.

    Raises:
        FileNotFoundError: if the folder, its images or the description of the dataset are missing.
        ValueError: if the flags do not say which dataset, or its description cannot be used.
    """
    folder = Path(arguments.FOLDER)
    expected = expected_files(arguments)
    previous = Path(arguments.prev_stage_predictions) if arguments.prev_stage_predictions else None
    cases = find_cases(folder, expected.file_ending, previous)
    findings = {
        case.name: findings_of(case, expected)
        for case in tqdm(cases, unit="case", disable=arguments.disable_progress_bar)
    }
    return CheckReport(findings, finding_lines(findings, folder))


def findings_of(case: Case, expected: Expected) -> list[Finding]:
    """What is wrong with one case; also when a file brings a check itself to fall."""
    try:
        return check_case(
            case.files,
            file_ending=expected.file_ending,
            channels=expected.channels,
            previous_stage=case.previous_stage,
            reader=expected.reader,
        )
    except Exception as error:  # one file must not end the check of a thousand
        logger.error("%s could not be checked.", case.name, exc_info=error)
        found = f"files that cannot be checked ({type(error).__name__}: {error})"
        return [Finding(None, found, "files that can be read", "Export the case again, and report this message.")]


def expected_files(arguments: argparse.Namespace) -> Expected:
    """What the model takes; or what the dataset holds, where -d stands alone.

    Raises:
        FileNotFoundError: if the dataset or the model is not described where it should be.
        ValueError: if the flags contradict each other, or so do several models.
    """
    if arguments.d is not None and not arguments.m and arguments.c is None:
        dataset_json = read_json(dataset_file(maybe_convert_to_dataset_name(arguments.d)))
        return expected_by_dataset(dataset_json, reader=dataset_json.get("overwrite_image_reader_writer"))
    folders = model_folders(arguments)
    expected = [expected_by_model(folder) for folder in folders]
    if len(set(expected)) > 1:
        described = "; ".join(f"{folder}: {one}" for folder, one in zip(folders, expected, strict=True))
        raise ValueError(f"All models must take the same files; found {described}. Check for one at a time.")
    return expected[0]


def expected_by_model(folder: Path) -> Expected:
    """What one model takes.

    Raises:
        FileNotFoundError: if the folder is none of a model.
    """
    plans = read_json(folder / "plans.json")
    return expected_by_dataset(read_json(folder / "dataset.json"), reader=plans.get("image_reader_writer"))


def expected_by_dataset(dataset_json: dict[str, Any], reader: str | None) -> Expected:
    """The part of a dataset.json that matters here.

    Raises:
        ValueError: if it lacks the file ending or the channels.
    """
    channels: Sequence[Any] | dict = dataset_json.get("channel_names", dataset_json.get("modality", ()))
    if not channels or "file_ending" not in dataset_json:
        raise ValueError(
            f"dataset.json must have file_ending and channel_names; found {', '.join(dataset_json) or 'nothing'}. "
            f"Add what is missing."
        )
    return Expected(dataset_json["file_ending"], len(channels), reader)


def dataset_file(name: str) -> Path:
    """dataset.json of a dataset that no model was named for, in `nnUNet_raw` or `nnUNet_preprocessed`.

    Raises:
        FileNotFoundError: if neither has one.
    """
    places = [Path(os.environ[key]) / name for key in ("nnUNet_raw", "nnUNet_preprocessed") if os.environ.get(key)]
    for place in places:
        if (place / "dataset.json").is_file():
            return place / "dataset.json"
    raise FileNotFoundError(
        f"{name} must have its dataset.json in nnUNet_raw or nnUNet_preprocessed; found none in "
        f"{' or '.join(map(str, places)) or 'either, as both are unset'}. Set the variables, or name a model with -m."
    )


def read_json(file: Path) -> dict[str, Any]:
    """The content of a file.

    Raises:
        FileNotFoundError: if it does not exist.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"A model folder must hold {file.name}; {file} does not exist. Check -m, or -d, -tr, -p and -c; if no "
            f"model is trained yet, give -d alone."
        )
    return json.loads(file.read_text(encoding="utf-8"))
