"""What `nnunet_ext select` chooses from: the units of a prediction folder that nobody has annotated yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_ext.descriptions import OF_DATASET, read_description
from nnunet_ext.evaluation.folder import Dataset, open_dataset, read_map
from nnunet_ext.evaluation.label_maps import read_label_map
from nnunet_ext.options import SelectOptions
from nnunet_ext.prediction_folder.agreement import require_agreement
from nnunet_ext.prediction_folder.cases import Case, find_cases, segmented_cases
from nnunet_ext.prediction_folder.map_files import map_file_ending
from nnunet_ext.prediction_folder.provenance import read_record
from nnunet_ext.report.data import ReportCase
from nnunet_ext.selection.scores import scored
from nnunet_ext.selection.table import Annotated, boxes_in
from nnunet_ext.selection.units import Box, Unit, patch_boxes, slice_boxes, whole

TABLE_ENDING = ".csv"


@dataclass(frozen=True)
class Pool:
    """A prediction folder, and what is annotated in it.

    Attributes:
        options: of the command.
        dataset_json: that of the folder.
        dataset: how segmentations and maps are read.
        record: content of `predict_args.json`; empty if there is none.
        cases: all that were predicted, by name.
        annotated: what is left out.
    """

    options: SelectOptions
    dataset_json: dict[str, Any]
    dataset: Dataset
    record: Mapping[str, Any]
    cases: tuple[str, ...]
    annotated: Annotated

    @classmethod
    def open(cls, options: SelectOptions) -> Pool:
        """Finds the cases, and checks that each has the map.

        Raises:
            FileNotFoundError: if the folder is not one that predict wrote, or a map is missing.
            DisagreementError: if the folder contradicts itself.
            ValueError: if an annotated case is not in it.
        """
        folder = options.predictions
        for name in ("dataset.json", "plans.json"):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"Units are selected from a folder that nnunet_ext predict wrote; {folder} has no {name}. Give "
                    f"the folder of its -o with -p."
                )
        require_agreement(folder)
        dataset_json = read_description(folder / "dataset.json", OF_DATASET)
        ending = dataset_json["file_ending"]
        cases = tuple(sorted(segmented_cases(folder, ending)))
        dataset = open_dataset(
            dataset_json, read_description(folder / "plans.json"), [folder / f"{case}{ending}" for case in cases]
        )
        annotated = annotated_of(options.already, cases)
        pool = cls(options, dataset_json, dataset, read_record(folder), cases, annotated)
        for case in pool.open_cases:
            pool.require_map(case)
        return pool

    @property
    def open_cases(self) -> list[str]:
        """The cases that are not annotated as a whole."""
        return [case for case in self.cases if case not in self.annotated.cases]

    def map_file(self, case: str) -> Path:
        """The map of a case."""
        ending = map_file_ending(self.dataset.file_ending, self.dataset.reader)
        return self.options.predictions / "maps" / self.options.score.by / f"{case}{ending}"

    def segmentation_file(self, case: str) -> Path:
        """The segmentation of a case."""
        return self.options.predictions / f"{case}{self.dataset.file_ending}"

    def require_map(self, case: str) -> None:
        """Refuses a folder without the map.

        Raises:
            FileNotFoundError: if it is missing.
        """
        if not self.map_file(case).is_file():
            by = self.options.score.by
            raise FileNotFoundError(
                f"Units are scored by the map {by}; {self.map_file(case)} does not exist. Predict with --maps {by}, "
                f"or select --by another map."
            )

    def units(self) -> list[Unit]:
        """All units that are not annotated, by case and place.

        Raises:
            NotComparableError: if a segmentation or map cannot be read.
            ValueError: if none is left.
        """
        bar = tqdm(self.open_cases, desc="scores", unit="case", disable=not self.options.allow_tqdm)
        found = [unit for case in bar for unit in self.units_of(case) if not self.annotated.has(unit)]
        if not found:
            raise ValueError(
                f"At least one {self.options.score.unit} must be left to annotate; all in {len(self.cases)} cases "
                f"of {self.options.predictions} are annotated. Predict more images, or correct --already."
            )
        return found

    def units_of(self, case: str) -> Iterator[Unit]:
        """The units of a case with their scores."""
        segmentation, _ = read_label_map(self.segmentation_file(case), self.dataset.reader)
        uncertainty = read_map(self.map_file(case), segmentation.shape, self.dataset)
        share = self.options.score.top_share
        for box in self.boxes(segmentation.shape):
            unit = scored(case, box, uncertainty, segmentation, share)
            by_slice = self.options.score.unit == "slice"
            yield replace(unit, slice=box[self.stack_axis][0]) if by_slice else unit

    def boxes(self, shape: tuple[int, ...]) -> list[Box]:
        """The boxes of all units of an image."""
        score = self.options.score
        if score.patch_size is not None:
            return patch_boxes(shape, score.patch_size)
        return slice_boxes(shape, self.stack_axis) if score.unit == "slice" else [whole(shape)]

    @property
    def stack_axis(self) -> int:
        """Along which slices are stacked."""
        return self.dataset.stack_axis or 0

    def report_case(self, case: str, images: Mapping[str, Case]) -> ReportCase:
        """A case with the files that a page shows."""
        files = images[case].files if case in images else ()
        maps: dict[str, Path] = {self.options.score.by: self.map_file(case)}
        return ReportCase({"case": case}, self.segmentation_file(case), maps, files)

    def images(self) -> dict[str, Case]:
        """Case to its image files, as far as they are there: the given folder, or the one that was predicted."""
        recorded = self.record.get("arguments", {}).get("i")
        folder = self.options.images or (Path(recorded) if isinstance(recorded, str) and recorded else None)
        if folder is None or (self.options.images is None and not folder.is_dir()):
            return {}
        return {case.name: case for case in find_cases(folder, self.dataset.file_ending)}


def annotated_of(words: tuple[str, ...], cases: tuple[str, ...]) -> Annotated:
    """What names of cases and tables of earlier selections say.

    Raises:
        FileNotFoundError: if a table does not exist.
        ValueError: if a case was not predicted, or a table is another one.
    """
    names = frozenset(word for word in words if not word.endswith(TABLE_ENDING))
    unknown = sorted(names - set(cases))
    if unknown:
        raise ValueError(f"--already must name predicted cases; there is none with the name {unknown[0]}.")
    boxes: dict[str, list[Box]] = {}
    for word in words:
        if word.endswith(TABLE_ENDING):
            for case, found in boxes_in(Path(word)).items():
                boxes.setdefault(case, []).extend(found)
    return Annotated(names, boxes)
