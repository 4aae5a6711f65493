"""What the page is about, gathered from a prediction folder; images stay on disk until they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.descriptions import read_description
from nnunet_ext.evaluation.attention import Row, flags_of, order_column, worst_first
from nnunet_ext.evaluation.confidences import DIRECTIONS, confidence_of, number_in
from nnunet_ext.evaluation.end_slices import planned_stack_axis
from nnunet_ext.evaluation.results import CaseEvaluation, FolderEvaluation
from nnunet_ext.evaluation.verdict_check import VerdictCheck, verdict_check
from nnunet_ext.input_checks.dicom_series import series_folders
from nnunet_ext.options import MAP_NAMES
from nnunet_ext.prediction_folder.case_table import TABLE_NAME, read_cases
from nnunet_ext.prediction_folder.cases import find_cases
from nnunet_ext.prediction_folder.map_files import map_file_ending
from nnunet_ext.prediction_folder.provenance import read_record
from nnunet_ext.report.label_names import channel_names, label_names
from nnunet_ext.report.models import ModelFolder, model_folders

MOST_NAMED = 10  # cases without a prediction
ONE_MEMBER = (
    "One member: disagreement between members (pairwise Dice, mutual information) is not defined. Predict with more "
    "folds, with --tta-members, or with --members mc-dropout if the network has dropout."
)

ImageFiles = dict[str, tuple[Path, ...]]  # by case


@dataclass(frozen=True)
class OperatingPoint:
    """From where on cases are accepted.

    Attributes:
        column: of `cases.csv`, one of `confidences.DIRECTIONS`.
        confidence: what a case must exceed to be accepted; larger is more confident, so that of an uncertainty is
            negative.
    """

    column: str
    confidence: float

    @property
    def threshold(self) -> float:
        """The same in the units of the column."""
        return DIRECTIONS[self.column] * self.confidence

    def accepts(self, row: Row) -> bool:
        """Whether a case is more confident than that; one without a value is not."""
        return confidence_of(row, self.column) > self.confidence


@dataclass(frozen=True)
class ReportCase:
    """One case.

    Attributes:
        row: of `cases.csv`.
        segmentation: the file.
        maps: name to file, of the maps that are there.
        image: a file a channel, or a folder with its DICOM series; empty where there are none.
        truth: the file, if there is one.
        evaluation: if the case was evaluated.
    """

    row: Row
    segmentation: Path
    maps: Mapping[str, Path] = field(default_factory=dict)
    image: tuple[Path, ...] = ()
    truth: Path | None = None
    evaluation: CaseEvaluation | None = None

    @property
    def name(self) -> str:
        """As in the table."""
        return self.row["case"]

    @property
    def verdict(self) -> str:
        """`accept`, `review` or `reject`; empty without calibration."""
        return self.row.get("verdict") or ""

    @property
    def flags(self) -> list[str]:
        """Words of the column `flags`."""
        return flags_of(self.row)

    @property
    def dice(self) -> float:
        """Mean Dice against the truth; NaN if the case was not evaluated or has none."""
        return self.evaluation.figures.get("mean_dice", float("nan")) if self.evaluation else float("nan")

    def number(self, column: str) -> float:
        """A cell of the table; NaN if it is empty or not there."""
        return number_in(self.row, column)


@dataclass(frozen=True)
class ReportData:
    """All that the page shows.

    Attributes:
        name: of the prediction folder.
        cases: worst first.
        order: the column that ordered them; empty if none could.
        calibrated: whether the table has verdicts.
        reader: nnU-Net's for this dataset.
        structures: names of the foreground classes or regions.
        label_names: label of the segmentations to name.
        channels: names of the image's channels.
        members: as `predict_args.json` lists them.
        models: their model folders.
        evaluation: of the folder, if there is a truth.
        training_rows: rows like those of `cases.csv` of cross-validation cases, with `dice`.
        judged_column: the column that the calibration is based on; empty without one.
        operating_point: of the calibration.
        failure_dice: a case fails below it.
        notes: what could not be shown, one sentence each.
        not_predicted: cases of the image folder without a row, such as those that failed.
        stack_axis: along which slices are stacked, on the axes of the reader; None if the plans do not say.
    """

    name: str
    cases: list[ReportCase]
    order: str
    calibrated: bool
    reader: BaseReaderWriter
    structures: tuple[str, ...]
    label_names: Mapping[int, str]
    channels: tuple[str, ...]
    members: Sequence[Mapping[str, Any]] = ()
    models: Sequence[ModelFolder] = ()
    evaluation: FolderEvaluation | None = None
    training_rows: Sequence[Row] = ()
    judged_column: str = ""
    operating_point: OperatingPoint | None = None
    failure_dice: float = 0.75
    notes: tuple[str, ...] = ()
    not_predicted: tuple[str, ...] = ()
    stack_axis: int | None = None

    @property
    def judged_cases(self) -> list[ReportCase]:
        """The cases with the confidence that the calibration judged in its column, to compare with its own cases.

        With several folds it is not that of the ensemble, see `Calibration.columns`.
        """
        return [
            replace(case, row={**case.row, self.judged_column: case.row["judged_confidence"]})
            if self.judged_column and case.row.get("judged_confidence")
            else case
            for case in self.cases
        ]

    @property
    def folds(self) -> int:
        """Number of folds that the members are from."""
        return len({Path(member["file"]).parent.name for member in self.members})

    @property
    def verdict_check(self) -> VerdictCheck | None:
        """What intervals and verdicts were worth; None without a truth or without verdicts."""
        evaluated = [case.evaluation for case in self.cases if case.evaluation]
        return verdict_check(evaluated, [case.row for case in self.cases], failure_dice=self.failure_dice)


def gather(
    prediction_folder: Path,
    *,
    images: Path | None = None,
    truth: Path | None = None,
    evaluation: FolderEvaluation | None = None,
    training_rows: Sequence[Row] = (),
    judged_column: str = "",
    operating_point: OperatingPoint | None = None,
    failure_dice: float = 0.75,
    mapped_samples: int = 60,
) -> ReportData:
    """Reads all tables and descriptions of a prediction folder and of the models behind it, but no image.

    Args:
        prediction_folder: what `nnunet_ext predict` wrote.
        images: folder with `CASE_0000<ending>`; by default the one that was predicted, if it still exists.
        truth: folder with `CASE<ending>`, to be outlined.
        evaluation: of this folder.
        training_rows: rows like those of `cases.csv` of cross-validation cases, with `dice`.
        judged_column: the column that the calibration is based on; empty without one.
        operating_point: from where on cases are accepted.
        failure_dice: a case fails below it.
        mapped_samples: how many samples of a Cyclical training are read for the map of its weights; below 3 none.

    Raises:
        FileNotFoundError: if the folder lacks `cases.csv`, `dataset.json` or `plans.json`, or a folder that was
            named does not exist.
        ValueError: if the table has no cases, or no column `case`.
    """
    for name in (TABLE_NAME, "dataset.json", "plans.json"):
        if not (prediction_folder / name).is_file():
            raise FileNotFoundError(
                f"A report is made of a folder that nnunet_ext predict wrote, with {TABLE_NAME}, dataset.json and "
                f"plans.json; {prediction_folder} has no {name}. Give the folder of -o, or predict again."
            )
    rows = read_cases(prediction_folder / TABLE_NAME)
    if not rows:
        raise ValueError(
            f"A report shows at least one case; {prediction_folder / TABLE_NAME} has no rows. Predict a case first."
        )
    if truth is not None and not truth.is_dir():
        raise FileNotFoundError(f"The folder of the truth must exist; {truth} does not.")
    dataset_json = read_description(prediction_folder / "dataset.json", ("labels", "file_ending"))
    plans = read_description(prediction_folder / "plans.json")
    reader = PlansManager(plans).image_reader_writer_class()
    run = read_record(prediction_folder)
    members = run.get("members", [])
    ending = dataset_json["file_ending"]
    image_files, notes = _image_files(images, run, ending)
    if all(row.get("members") == "1" for row in rows):
        notes.append(ONE_MEMBER)
    not_predicted = tuple(sorted(image_files.keys() - {row["case"] for row in rows}))
    if not_predicted:
        notes.insert(0, not_predicted_text(not_predicted))
    evaluated = {case.case: case for case in evaluation.cases} if evaluation else {}
    order = order_column(rows)
    map_ending = map_file_ending(ending, reader) if (prediction_folder / "maps").is_dir() else ending
    cases = [
        ReportCase(
            row=row,
            segmentation=prediction_folder / f"{row['case']}{ending}",
            maps=_map_files(prediction_folder, row["case"], map_ending),
            image=image_files.get(row["case"], ()),
            truth=_if_there(truth / f"{row['case']}{ending}") if truth else None,
            evaluation=evaluated.get(row["case"]),
        )
        for row in worst_first(rows, order)
    ]
    names = label_names(dataset_json)
    return ReportData(
        name=prediction_folder.resolve().name,
        cases=cases,
        order=order,
        calibrated=any(case.verdict for case in cases),
        reader=reader,
        structures=tuple(column.removeprefix("volume_ml_") for column in rows[0] if column.startswith("volume_ml_")),
        label_names=names,
        channels=channel_names(dataset_json),
        members=members,
        models=model_folders(members, mapped_samples=mapped_samples),
        evaluation=evaluation,
        training_rows=training_rows,
        judged_column=judged_column,
        operating_point=operating_point,
        failure_dice=failure_dice,
        notes=tuple(notes),
        not_predicted=not_predicted,
        stack_axis=planned_stack_axis(plans),
    )


def not_predicted_text(cases: Sequence[str]) -> str:
    """Which images have no prediction, and how to learn why."""
    named = ", ".join(cases[:MOST_NAMED]) + (f" and {len(cases) - MOST_NAMED} more" if cases[MOST_NAMED:] else "")
    return f"Not predicted: {named}. predict --continue_prediction tries again and says why."


def _image_files(images: Path | None, run: Mapping[str, Any], ending: str) -> tuple[ImageFiles, list[str]]:
    """Name of a case to its files, and what to say where there are none."""
    if images is not None:
        return channels_of_cases(images, ending), []
    recorded = run.get("arguments", {}).get("i")
    try:
        if isinstance(recorded, str) and recorded:
            return channels_of_cases(Path(recorded), ending), []
    except FileNotFoundError:
        pass  # the note below says so
    return {}, [
        "The predicted images are no longer in their folder, so segmentations are drawn on black. Name it with -i."
    ]


def channels_of_cases(images: Path, ending: str) -> ImageFiles:
    """Name of a case to its channels, files or folders with a DICOM series each."""
    if series := series_folders(images):
        return {case: tuple(folders) for case, folders in series.items()}
    return {case.name: case.files for case in find_cases(images, ending)}


def _map_files(folder: Path, case: str, ending: str) -> dict[str, Path]:
    files = {name: folder / "maps" / name / f"{case}{ending}" for name in MAP_NAMES}
    return {name: file for name, file in files.items() if file.is_file()}


def _if_there(file: Path) -> Path | None:
    return file if file.is_file() else None
