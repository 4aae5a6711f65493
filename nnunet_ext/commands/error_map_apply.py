"""What `nnunet_ext error-map apply` does: an error map, expected Dice and flagged slices for each prediction."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_ext.commands.error_map_fit import error_probability
from nnunet_ext.error_maps.case_judgement import TABLE_NAME, CaseJudgement, judged, with_judgement
from nnunet_ext.error_maps.error_dataset import made_from, one_hot
from nnunet_ext.error_maps.error_model import FILE_NAME, ErrorModel
from nnunet_ext.error_maps.text import doubts
from nnunet_ext.evaluation.label_maps import NotComparableError, read_label_map, require_labels
from nnunet_ext.evaluation.summary import write_table
from nnunet_ext.files.atomic import PARTIAL_PREFIX, atomic_path, without_nan, write_json
from nnunet_ext.inference.engine import EnsembleEngine, device_of
from nnunet_ext.machine.devices import prepare_process_for
from nnunet_ext.models.description import model_description
from nnunet_ext.options import EnsembleOptions, ErrorApplyOptions, OutputOptions
from nnunet_ext.prediction_folder.agreement import require_agreement
from nnunet_ext.prediction_folder.case_files import CasePrediction
from nnunet_ext.prediction_folder.case_table import CaseTable, recorded_rows
from nnunet_ext.prediction_folder.cases import Case, find_cases, segmented_cases
from nnunet_ext.prediction_folder.map_files import map_file_ending, write_map
from nnunet_ext.prediction_folder.output_lock import OutputLock

MAP_NAME = "error"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ErrorMapOutcome:
    """The outcome for each case.

    Attributes:
        folder: with the maps and the table.
        judgements: of the cases that were judged, by name.
        problems: name of a case to what is wrong with it.
        updated: number of rows of `cases.csv` that were updated.
    """

    folder: Path
    judgements: Sequence[CaseJudgement]
    problems: Mapping[str, str]
    updated: int


def judge_predictions(options: ErrorApplyOptions) -> ErrorMapOutcome:
    """Writes maps, `error_map.csv` and `error_map.json`; updates `cases.csv` of the predictions if they are there.

    Raises:
        ErrorModelError: if the error model was not fitted, or was trained again since.
        NotAnErrorModelError: if it is another model.
        DisagreementError: if the folder of the predictions contradicts itself.
        OutputInUseError: if another run is writing to the folder.
        FileNotFoundError: if there are no images.
    """
    limits = ErrorModel.load(options.model)
    for doubt in doubts(limits):
        logger.warning("%s: %s", options.model / FILE_NAME, doubt)
    plans, dataset_json = model_description(options.model)
    labels = made_from(dataset_json, options.model)["labels"]
    require_agreement(options.predictions)
    engine = engine_of(options, limits)
    dataset = Stored(
        dataset_json["file_ending"],
        engine.models[0].plans.image_reader_writer_class(),
        labels,
        int(plans["transpose_forward"][0]),
    )
    output = options.output or options.predictions
    lock = OutputLock(output)
    try:
        with tempfile.TemporaryDirectory() as masks:
            cases, problems = cases_with_masks(options, dataset, Path(masks))
            judge = Judge(options.predictions, output, dataset, limits)
            outcome = engine.predict_cases(cases, judge, OutputOptions(maps=(), save_probabilities=True))
        write_table([judgement.table_row() for judgement in judge.judgements], output / TABLE_NAME)
        write_json(without_nan({"model": str(options.model.absolute()), **asdict(limits)}), output / FILE_NAME)
        updated = update_cases(output, judge.judgements) if output.samefile(options.predictions) else 0
    finally:
        lock.release()
    return ErrorMapOutcome(output, judge.judgements, dict(sorted((problems | outcome.failed).items())), updated)


def engine_of(options: ErrorApplyOptions, limits: ErrorModel) -> EnsembleEngine:
    """The fitted ensemble.

    Raises:
        ErrorModelError: if a member is not among the fitted ones.
    """
    ensemble = EnsembleOptions(
        folds=options.folds or limits.folds,
        members=limits.rule,
        tta=limits.tta,
        device=options.device,
        allow_tqdm=options.allow_tqdm,
    )
    prepare_process_for(device_of(ensemble))
    engine = EnsembleEngine.from_model_folders([options.model], ensemble)
    limits.require_members((member.name, member.sha256) for member in engine.models[0].members)
    return engine


@dataclass(frozen=True)
class Stored:
    """How images, segmentations and maps are stored.

    Attributes:
        ending: file ending of images and segmentations.
        reader: nnU-Net's reader/writer.
        labels: that a segmentation may have besides background, in the order of the error model's channels.
        stack_axis: along which slices are stacked.
    """

    ending: str
    reader: BaseReaderWriter
    labels: Sequence[int]
    stack_axis: int


def cases_with_masks(options: ErrorApplyOptions, dataset: Stored, masks: Path) -> tuple[list[Case], dict[str, str]]:
    """The cases of the error model, whose masks are written to a folder, and what is wrong with the others."""
    images = {case.name: case for case in find_cases(options.images, dataset.ending)}
    segmented = segmented_cases(options.predictions, dataset.ending)
    missing = f"There is no prediction of this case in {options.predictions}. Predict it first."
    problems = dict.fromkeys(images.keys() - segmented, missing)
    cases = []
    for name in sorted(images.keys() & segmented):
        try:
            segmentation, properties = read_label_map(options.predictions / f"{name}{dataset.ending}", dataset.reader)
            require_labels(segmentation, {0, *dataset.labels}, f"the prediction {name}{dataset.ending}")
        except NotComparableError as error:
            problems[name] = str(error)
            continue
        files = list(images[name].files)
        for number, mask in enumerate(one_hot(segmentation, dataset.labels), start=len(files)):
            files.append(masks / f"{name}_{number:04d}{dataset.ending}")
            dataset.reader.write_seg(mask, str(files[-1]), properties)
        cases.append(Case(name, tuple(files)))
    return cases, problems


@dataclass
class Judge:
    """Writes the map of each case and judges it.

    Attributes:
        predictions: folder of the segmentations.
        output: folder for the maps.
        dataset: how files are stored.
        limits: of the error model.
        judgements: so far.
    """

    predictions: Path
    output: Path
    dataset: Stored
    limits: ErrorModel
    judgements: list[CaseJudgement] = field(default_factory=list)

    def write(self, prediction: CasePrediction) -> None:
        """Judges one case."""
        error, case = error_probability(prediction), prediction.case
        segmentation, properties = read_label_map(
            self.predictions / f"{case}{self.dataset.ending}", self.dataset.reader
        )
        self._write_map(error, case, properties)
        axis = self.dataset.stack_axis
        self.judgements.append(judged(case, error, segmentation > 0, stack_axis=axis, model=self.limits))

    def _write_map(self, error: np.ndarray, case: str, properties: dict[str, Any]) -> None:
        """Writes `maps/error/CASE`, complete or not at all, with what the format stores beside it."""
        folder = self.output / "maps" / MAP_NAME
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{case}{map_file_ending(self.dataset.ending, self.dataset.reader)}"
        with tempfile.TemporaryDirectory(prefix=PARTIAL_PREFIX, dir=folder) as staging:
            write_map(error, Path(staging) / name, properties, self.dataset.reader)
            for file in sorted(Path(staging).iterdir()):
                with atomic_path(folder / file.name) as temporary:
                    file.replace(temporary)


def update_cases(folder: Path, judgements: Sequence[CaseJudgement]) -> int:
    """Adds the judgements to the rows of `cases.csv`; returns how many rows there were. Stock nnU-Net writes none."""
    rows = {row["case"]: row for row in recorded_rows(folder)}
    known = [judgement for judgement in judgements if judgement.case in rows]
    if known:
        table = CaseTable(folder, keep_existing=True)
        for judgement in known:
            table.add(with_judgement(rows[judgement.case], judgement))
        table.finish()
    return len(known)
