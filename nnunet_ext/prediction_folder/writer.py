"""Writes the cases of a run into a folder, and the files that describe the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_ext.prediction_folder.case_files import (
    CaseContents,
    CasePrediction,
    ImageFormat,
    is_complete,
    remove_abandoned,
    remove_leftovers,
    write_case,
    write_run_description,
)
from nnunet_ext.prediction_folder.case_table import CaseTable, recorded_rows
from nnunet_ext.prediction_folder.cases import Case, segmented_cases
from nnunet_ext.prediction_folder.map_files import map_file_ending, require_map_type
from nnunet_ext.prediction_folder.output_lock import OutputLock
from nnunet_ext.prediction_folder.provenance import (
    Provenance,
    read_provenance,
    read_record,
    require_same_ensemble,
    require_same_inputs,
)


@dataclass(frozen=True)
class RunRecord:
    """What a prediction folder records about the run that wrote it.

    Attributes:
        arguments: arguments of the run.
        members: one dictionary per member: its name, file, hash and so on.
        provenance: what makes up the ensemble.
        dataset_json: `dataset.json` of the first model.
        plans: plans of the first model.
    """

    arguments: dict[str, Any]
    members: list[dict[str, Any]]
    provenance: Provenance
    dataset_json: dict[str, Any]
    plans: dict[str, Any]


class CaseWriter:
    """Writes cases into an output folder, with the files that describe the run.

    It locks the folder when it is constructed; as a context manager it releases it at the end.

    Args:
        output: the folder; created if missing.
        contents: what every case gets.
        record: what is recorded about the run.
        reader_writer: nnU-Net's reader/writer of the dataset.

    Raises:
        ValueError: if the dataset's format cannot hold maps of this type, or the record of the folder is damaged.
        OtherEnsembleError: if the folder holds the results of another ensemble.
        OtherInputsError: if a prediction would continue with other images.
        OutputInUseError: if another run is writing to the folder.
        NotADirectoryError, PermissionError: if it is not a folder or not writable.
    """

    def __init__(
        self, output: Path, contents: CaseContents, record: RunRecord, reader_writer: BaseReaderWriter
    ) -> None:
        options = contents.options
        self.output = output
        self.contents = contents
        self.image_format = ImageFormat(record.dataset_json["file_ending"], reader_writer)
        if options.maps:
            ending = map_file_ending(self.image_format.file_ending, reader_writer)
            require_map_type(options.map_type, f"*{ending}")
        self._alone = options.num_parts == 1
        self._lock = OutputLock(output, part_id=options.part_id, num_parts=options.num_parts)
        try:
            keep_existing = self._is_of_the_same_ensemble(record.provenance)
            if keep_existing and options.continue_prediction:
                require_same_inputs(output, read_record(output).get("arguments", {}), record.arguments)
            self.table = CaseTable(
                output,
                part_id=options.part_id,
                num_parts=options.num_parts,
                keep_existing=keep_existing,
            )
            self._rows_before = {row["case"]: row for row in recorded_rows(output)}
            write_run_description(
                output,
                arguments=record.arguments,
                members=record.members,
                ensemble=record.provenance.record(),
                dataset_json=record.dataset_json,
                plans=record.plans,
            )
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> CaseWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _is_of_the_same_ensemble(self, wanted: Provenance) -> bool:
        """Whether there are results to keep, checked before anything is written.

        Raises:
            OtherEnsembleError: if there are results, but of another ensemble.
        """
        found = read_provenance(self.output)
        # Every predictor describes the dataset; images alone, when predicting in place, are not results.
        described = found is not None or (self.output / "dataset.json").is_file()
        has_results = described and bool(segmented_cases(self.output, self.image_format.file_ending))
        # The other parts of a prediction may be running without any result yet.
        if has_results or (found is not None and not self._alone):
            require_same_ensemble(self.output, found, wanted)
            return True
        return False

    def clear(self, cases: Sequence[Case]) -> None:
        """Removes temporary files of killed runs (a part only those of its cases); complete files stay."""
        if self._alone:
            remove_abandoned(self.output)
        for case in cases:
            remove_leftovers(case.name, self.output)

    def has(self, case: Case) -> bool:
        """Whether all files of the case and its row are there and, with a calibration, its verdict."""
        row = self._rows_before.get(case.name)
        if row is None or (self.contents.verdict and not row.get("verdict")):
            return False
        return is_complete(case.name, self.output, self.image_format, self.contents)

    def write(self, prediction: CasePrediction) -> None:
        """Writes one case."""
        write_case(prediction, self.output, self.image_format, self.table, self.contents.options.map_type)

    def record(self, case: Case, row: dict[str, object] | None) -> None:
        """Records a case that another process has written, or failed to write.

        Args:
            case: the case.
            row: its row; None if it failed. Then an earlier row stays only if its segmentation is still there.
        """
        if row is not None:
            self.table.add({**row, "case": case.name})
        elif not (self.output / f"{case.name}{self.image_format.file_ending}").is_file():
            self.table.discard(case.name)


def output_of(output: str | Path | Sequence[str] | None, cases: list[Case]) -> tuple[Path | None, list[Case]]:
    """The output folder, and the cases under the names that a list of output paths gives them.

    Raises:
        ValueError: if a list does not have one path per case, or its paths are in different folders.
    """
    if output is None or isinstance(output, (str, Path)):
        return (None if output is None else Path(output)), cases
    paths = [Path(path) for path in output]
    if len(paths) != len(cases) or len({path.parent for path in paths}) != 1:
        raise ValueError(
            f"A list of outputs must name one path per case, all in one folder; found {len(paths)} paths in "
            f"{len({path.parent for path in paths})} folders for {len(cases)} cases."
        )
    renamed = [Case(path.name, case.files, case.previous_stage) for path, case in zip(paths, cases, strict=True)]
    return paths[0].parent, renamed
