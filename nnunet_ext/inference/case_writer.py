"""Where the cases of a run are written to, and what is written about the run itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.inference.case_table import CaseTable, recorded_rows
from nnunet_ext.inference.cases import Case
from nnunet_ext.inference.export import (
    CasePrediction,
    is_complete,
    remove_abandoned,
    remove_leftovers,
    write_case,
    write_run_description,
)
from nnunet_ext.inference.float_maps import MapType, map_file_ending, require_map_type
from nnunet_ext.inference.members import Member
from nnunet_ext.inference.model import Model
from nnunet_ext.inference.output_lock import OutputLock


class CaseWriter:
    """Writes cases into an output folder, with the files that describe the run.

    It holds the folder from the beginning; as a context manager it gives it free at the end.

    Args:
        output: the folder; made if it is missing.
        models: whose members, plans and dataset are recorded.
        maps: names of the maps that every case gets.
        save_probabilities: whether every case gets its probabilities.
        member_names: members whose own segmentations are written.
        keep_existing: continue an earlier run.
        part_id: which of several runs into this folder this is, from 0.
        num_parts: how many there are.
        calibration: that the cases are predicted with, or None.
        arguments: what to record in `predict_args.json`.
        map_type: of the maps' files, see `write_map`.

    Raises:
        ValueError: if the dataset's format cannot hold maps of this type.
        OutputInUseError: if another run writes the folder.
        NotADirectoryError, PermissionError: if it is no folder or cannot be written.
    """

    def __init__(
        self,
        output: Path,
        models: Sequence[Model],
        *,
        maps: Sequence[str],
        save_probabilities: bool,
        member_names: Sequence[str],
        keep_existing: bool,
        part_id: int,
        num_parts: int,
        calibration: Calibration | None,
        arguments: dict[str, Any],
        map_type: MapType = "float32",
    ) -> None:
        first = models[0]
        self.output = output
        self.file_ending = first.dataset_json["file_ending"]
        self.reader_writer = first.plans.image_reader_writer_class()
        self.maps = maps
        self.map_type = map_type
        if maps:
            require_map_type(map_type, f"*{map_file_ending(self.file_ending, self.reader_writer)}")
        self.save_probabilities = save_probabilities
        self.member_names = member_names
        self.covering_mask = calibration is not None and calibration.mask is not None
        self.calibrated = calibration is not None
        self._alone = num_parts == 1
        self._lock = OutputLock(output, part_id=part_id, num_parts=num_parts)
        try:
            self.table = CaseTable(output, part_id=part_id, num_parts=num_parts, keep_existing=keep_existing)
            self.judged = {row["case"] for row in recorded_rows(output) if row.get("verdict")}
            write_run_description(
                output,
                arguments=arguments,
                members=[describe(member) for model in models for member in model.members],
                dataset_json=first.dataset_json,
                plans=first.plans.plans,
            )
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> CaseWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def clear(self, cases: Sequence[Case]) -> None:
        """Removes what killed runs left under temporary names, a part only what is of its cases; whole files stay."""
        if self._alone:
            remove_abandoned(self.output)
        for case in cases:
            remove_leftovers(case.name, self.output)

    def has(self, case: Case) -> bool:
        """Whether all files of the case are there and, with a calibration, its verdict."""
        if self.calibrated and case.name not in self.judged:
            return False
        return is_complete(
            case.name, self.output, file_ending=self.file_ending, maps=self.maps,
            save_probabilities=self.save_probabilities, member_names=self.member_names,
            reader_writer=self.reader_writer, covering_mask=self.covering_mask,
        )  # fmt: skip

    def write(self, prediction: CasePrediction) -> None:
        """Writes one case."""
        write_case(
            prediction, self.output, file_ending=self.file_ending, reader_writer=self.reader_writer, table=self.table,
            map_type=self.map_type,
        )  # fmt: skip


def describe(member: Member) -> dict[str, Any]:
    """What `predict_args.json` records of a member."""
    return {
        "name": member.name,
        "file": str(member.path),
        "sha256": member.sha256,
        "trainer": member.trainer_name,
        "configuration": member.configuration,
    }


def output_of(output: str | Path | Sequence[str] | None, cases: list[Case]) -> tuple[Path | None, list[Case]]:
    """The output folder, and the cases under the names that a list of output paths gives them.

    Raises:
        ValueError: if a list is not as long as the cases, or its paths are in different folders.
    """
    if output is None or isinstance(output, (str, Path)):
        return (None if output is None else Path(output)), cases
    paths = [Path(path) for path in output]
    if len(paths) != len(cases) or len({path.parent for path in paths}) != 1:
        raise ValueError(
            f"A list of outputs must name one path a case, all in one folder; found {len(paths)} paths in "
            f"{len({path.parent for path in paths})} folders for {len(cases)} cases."
        )
    renamed = [Case(path.name, case.files, case.previous_stage) for path, case in zip(paths, cases, strict=True)]
    return paths[0].parent, renamed
