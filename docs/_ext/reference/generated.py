"""What is generated, by the name that a page calls it by."""

from __future__ import annotations

from collections.abc import Callable

from reference import commands, faults, metrics, outputs, site_contents, trainers

GENERATED: dict[str, Callable[..., str]] = {
    "front-page": site_contents.front_page,
    "commands": commands.overview,
    "exit-statuses": commands.exit_statuses,
    "command": commands.command_section,
    "parts": trainers.parts,
    "claims": trainers.claims,
    "conditions": trainers.conditions,
    "structure-columns": metrics.structure_columns,
    "case-columns": metrics.case_columns,
    "absent-structures": metrics.absent_structures,
    "maps": outputs.maps,
    "folder-files": outputs.folder_files,
    "compare-columns": outputs.compare_columns,
    "summary-keys": outputs.summary_keys,
    "case-table": outputs.case_table,
    "case-flags": outputs.case_flags,
    "ensemble-record": outputs.ensemble_record,
    "calibration-keys": outputs.calibration_keys,
    "sample-keys": outputs.sample_keys,
    "faults": faults.faults_of,
}
