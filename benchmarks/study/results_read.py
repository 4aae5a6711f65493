"""The results of a study, seeds of a method together, and what the tables show of them."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_ext.evaluation.comparison import PairedComparison, paired_comparison
from nnunet_ext.patients import patient_of

from .cells import Cell, result_file
from .data import patients_pattern
from .settings import ImageSet, Method, Study, read_study

REFERENCE = "stock"


@dataclass(frozen=True)
class MethodResults:
    """The results of a method's seeds.

    Attributes:
        method: which.
        results: one per seed that is done, as `run_cell` writes them.
    """

    method: Method
    results: tuple[dict[str, Any], ...]

    def of_cases(self, test: ImageSet, column: str) -> dict[str, float]:
        """A figure of each case, the mean of the seeds; NaN where a seed has none."""
        by_seed = []
        for result in self.results:
            found = result["tests"][test.name]
            by_seed.append(
                {
                    case: dict(zip(found["columns"], values, strict=True)).get(column)
                    for case, values in found["cases"].items()
                }
            )
        return {case: float(np.mean([_nan(seed[case]) for seed in by_seed])) for case in by_seed[0]}

    def mean(self, test: ImageSet, column: str) -> float:
        """Mean of the cases that have the figure; NaN if none has."""
        values = np.array([value for value in self.of_cases(test, column).values() if value == value])
        return float(values.mean()) if values.size else float("nan")

    def of_set(self, test: ImageSet, *keys: str) -> float:
        """A figure of the whole set, mean of the seeds; NaN where it is missing."""
        values = []
        for result in self.results:
            found: Any = result["tests"][test.name]
            for key in keys:
                found = (found or {}).get(key)
            values.append(_nan(found))
        return float(np.mean(values))

    def with_seeds_of(self, other: MethodResults) -> MethodResults:
        """The results of the seeds that another method has too, so that both are compared at the same ones."""
        return self.of_seeds([result["seed"] for result in other.results])

    def of_seeds(self, seeds: Collection[int]) -> MethodResults:
        """The results of some seeds."""
        return MethodResults(self.method, tuple(result for result in self.results if result["seed"] in seeds))

    def training_seconds(self) -> float:
        """CPU seconds of all trainings of a cell, mean of the seeds."""
        return float(np.mean([result["training_cpu_s"] for result in self.results]))


def read_results(study: Study) -> dict[str, MethodResults]:
    """Methods with a result, by name, in the order of methods.toml; before them the reference of another preset."""
    found = {}
    if study.preset.reference:
        reference = read_results(read_study(study.preset.reference))[REFERENCE]
        found[REFERENCE] = reference.of_seeds(study.preset.seeds)
    for method in study.methods:
        files = [result_file(study, Cell(method, seed)) for seed in study.preset.seeds]
        results = tuple(json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file())
        if results:
            found[method.name] = MethodResults(method, results)
    return found


def compared(
    study: Study, test: ImageSet, column: str, method: MethodResults, reference: MethodResults
) -> PairedComparison:
    """Method - reference, of the seeds that both have, paired by case, with an interval over patients."""
    first, second = (
        one.with_seeds_of(other).of_cases(test, column) for one, other in ((method, reference), (reference, method))
    )
    cases = list(second)
    patients = [patient_of(case, patients_pattern(study.preset, test)) for case in cases]
    return paired_comparison([first[case] for case in cases], [second[case] for case in cases], groups=patients)


def _nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)
