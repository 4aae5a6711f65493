"""`nnunet_ext check`: checks images before they are predicted. Torch is not imported."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from tqdm import tqdm

from nnunet_ext.commands.dicom_conversion import convert_case, require_series_only
from nnunet_ext.commands.image_remarks import image_remarks
from nnunet_ext.descriptions import channels_of, read_description, require_keys
from nnunet_ext.error_text import in_words
from nnunet_ext.input_checks import Finding, check_case
from nnunet_ext.input_checks.dicom_series import series_folders
from nnunet_ext.input_checks.text import finding_lines
from nnunet_ext.models.description import model_description
from nnunet_ext.models.named_folders import chosen_model_folders
from nnunet_ext.options import CheckOptions
from nnunet_ext.prediction_folder.cases import Case, find_cases

logger = logging.getLogger(__name__)

NEEDED = ("channel_names", "file_ending")


@dataclass(frozen=True)
class ExpectedFiles:
    """What the files of every case must be.

    Attributes:
        file_ending: file ending in dataset.json.
        channels: number of channels in dataset.json.
        reader: name of nnU-Net's class that will read them; None where the file ending alone decides.
    """

    file_ending: str
    channels: int
    reader: str | None


@dataclass(frozen=True)
class CheckOutcome:
    """What a check of a folder found.

    Attributes:
        findings: case name to its findings; empty for a good case.
        lines: text for the terminal.
    """

    findings: dict[str, list[Finding]]
    lines: list[str]

    @property
    def bad(self) -> list[str]:
        """Names of the cases with findings."""
        return [name for name, findings in self.findings.items() if findings]


def check_folder(options: CheckOptions) -> CheckOutcome:
    """Checks all cases of a folder as `predict` would before it predicts them.

    Raises:
        FileNotFoundError: if the folder, its images or the description of the dataset are missing.
        ValueError: if the models contradict each other, or a description cannot be used.
    """
    expected = expected_files(options)
    if series := series_folders(options.images):
        require_series_only(options.images, expected.file_ending)
        progress = tqdm(series.items(), unit="case", disable=not options.allow_tqdm)
        findings = {case: findings_of_series(case, channels, expected) for case, channels in progress}
        return CheckOutcome(findings, finding_lines(findings, options.images))
    cases = find_cases(options.images, expected.file_ending, options.previous_stage)
    findings = {
        case.name: findings_of(case, expected) for case in tqdm(cases, unit="case", disable=not options.allow_tqdm)
    }
    remarks = image_remarks(options.images, cases, expected.file_ending, expected.reader)
    return CheckOutcome(findings, [*finding_lines(findings, options.images), *remarks])


def findings_of(case: Case, expected: ExpectedFiles) -> list[Finding]:
    """What is wrong with one case; a check that crashes on a file is reported as a finding."""
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
        found = f"files that cannot be checked ({in_words(error)})"
        return [Finding(None, found, "files that can be read", "Export the case again, and report this message.")]


def findings_of_series(name: str, channels: Sequence[Path], expected: ExpectedFiles) -> list[Finding]:
    """What is wrong with the DICOM series of a case: each in itself, then as the image that `predict` makes of it."""
    with TemporaryDirectory(prefix="nnunet_ext-") as folder:
        _, findings = convert_case(channels, Path(folder), expected.file_ending)
        if findings:
            return findings
        files = {Path(folder) / f"{channel.name}{expected.file_ending}": channel for channel in channels}
        of_images = findings_of(Case(name, tuple(files)), expected)
    return [replace(each, file=files.get(each.file) if each.file else None) for each in of_images]


def expected_files(options: CheckOptions) -> ExpectedFiles:
    """What the models expect, or what the dataset contains if there is no model.

    Raises:
        FileNotFoundError: if the dataset or the model is not described where it should be.
        ValueError: if the models contradict each other.
    """
    if options.model is None:
        file = dataset_file(maybe_convert_to_dataset_name(options.dataset))
        dataset_json = read_description(file, NEEDED)
        return expected_by_dataset(dataset_json, reader=dataset_json.get("overwrite_image_reader_writer"))
    folders = chosen_model_folders(options.model)
    expected = [expected_by_model(folder) for folder in folders]
    if len(set(expected)) > 1:
        described = "; ".join(f"{folder}: {one}" for folder, one in zip(folders, expected, strict=True))
        raise ValueError(f"All models must take the same files; found {described}. Check for one model at a time.")
    return expected[0]


def expected_by_model(folder: Path) -> ExpectedFiles:
    """What one model expects.

    Raises:
        FileNotFoundError: if the folder is not a model folder.
        ValueError: if its dataset.json lacks the channels or the file ending.
    """
    plans, dataset_json = model_description(folder, advice="If no model is trained yet, give -d alone.")
    require_keys(dataset_json, folder / "dataset.json", NEEDED)
    return expected_by_dataset(dataset_json, reader=plans.get("image_reader_writer"))


def expected_by_dataset(dataset_json: dict[str, Any], reader: str | None) -> ExpectedFiles:
    """What a dataset.json says about the files.

    Raises:
        ValueError: if it has no channel.
    """
    channels = channels_of(dataset_json)
    if not channels:
        raise ValueError("channel_names of dataset.json must have at least one channel; found none. Add it.")
    return ExpectedFiles(dataset_json["file_ending"], len(channels), reader)


def dataset_file(name: str) -> Path:
    """The dataset.json of a dataset without a model, in `nnUNet_raw` or `nnUNet_preprocessed`.

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
