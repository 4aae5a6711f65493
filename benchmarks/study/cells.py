"""The cells of a study, a method with one seed each, and their results in the repository."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from .settings import HERE, Method, Study

RESULTS = HERE / "results"


@dataclass(frozen=True)
class Cell:
    """A method with a seed."""

    method: Method
    seed: int

    @property
    def name(self) -> str:
        """For files: `cyclical_all_modes_0`."""
        return f"{re.sub('[^a-z0-9]+', '_', self.method.name.lower()).strip('_')}_{self.seed}"


def result_file(study: Study, cell: Cell, results: Path = RESULTS) -> Path:
    """Where a cell's result lies in the repository."""
    return results / study.name / f"{cell.name}.json"


def take_over(study: Study, cell: Cell, results: Path = RESULTS) -> bool:
    """Copies the result of another preset in which the cell is the same, by the hash of its settings.

    Returns:
        Whether the cell has a result now.
    """
    file = result_file(study, cell, results)
    for other in [] if file.is_file() else sorted(results.glob(f"*/{cell.name}.json")):
        if json.loads(other.read_text(encoding="utf-8"))["settings"] == study.settings_hash(cell.method):
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(other, file)
            break
    return file.is_file()


def cells_of(study: Study) -> list[Cell]:
    """All cells; the first seed of every method before the second of any."""
    return [Cell(method, seed) for seed in study.preset.seeds for method in study.methods]
