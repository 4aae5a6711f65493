"""DICOM series as image files that nnU-Net reads. Torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from nnunet_ext.error_text import in_words
from nnunet_ext.input_checks.dicom_series import write_series_image
from nnunet_ext.input_checks.findings import Finding, UnreadableFile
from nnunet_ext.prediction_folder.cases import find_cases

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
TRY_AGAIN = "Make room where temporary files go (TMPDIR), or export the series again."


@dataclass
class ConvertedSeries:
    """What became of the series of the cases.

    Attributes:
        sources: name of a case to the files of its first channel, in the order of the slices.
        refused: name of a case to what is wrong with its series.
    """

    sources: dict[str, list[Path]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def require_series_only(images: Path, ending: str) -> None:
    """Refuses series for a model of pictures, and image files beside series.

    Raises:
        ValueError: if so.
    """
    if ending not in ENDINGS:
        raise ValueError(
            f"DICOM series are read as volumes, for a model that takes {', '.join(ENDINGS)}; this one takes {ending}."
        )
    try:
        beside = find_cases(images, ending)
    except FileNotFoundError:
        return
    raise ValueError(
        f"A folder of images holds DICOM series or files; found both, such as {beside[0].files[0].name}. Put them "
        f"into folders of their own, and predict twice."
    )


def convert(
    folders: Mapping[str, Sequence[Path]], images: Path, ending: str, *, progress: bool = False
) -> ConvertedSeries:
    """Writes the series of each case as `CASE_0000<ending>`; of a case with a bad one, the good ones."""
    converted = ConvertedSeries()
    for case, channels in tqdm(folders.items(), desc="DICOM", unit="case", disable=not progress):
        files, findings = convert_case(channels, images, ending)
        if findings:
            converted.refused[case] = "\n".join(map(str, findings))
        if files[0]:
            converted.sources[case] = files[0]
    return converted


def convert_case(channels: Sequence[Path], images: Path, ending: str) -> tuple[list[list[Path]], list[Finding]]:
    """Writes the series of one case, see `convert`.

    Returns:
        The files of each channel in the order of the slices, none of a bad one, and what is wrong.
    """
    files: list[list[Path]] = []
    findings = []
    for folder in channels:
        try:
            files.append(write_series_image(folder, images / f"{folder.name}{ending}"))
            continue
        except UnreadableFile as error:
            findings.append(Finding(folder, error.found, error.expected, error.remedy))
        except (OSError, RuntimeError, MemoryError) as error:  # of a disk; RuntimeError: SimpleITK's own
            found = f"a series that cannot be converted ({in_words(error)})"
            findings.append(Finding(folder, found, "files that can be read, and room for temporary ones", TRY_AGAIN))
        files.append([])
    return files, findings
