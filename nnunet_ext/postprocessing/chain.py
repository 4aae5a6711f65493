"""A chain of steps with what it was chosen on, as one JSON file in the model folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_ext.files.atomic import without_nan, write_json
from nnunet_ext.files.strict_json import read_strict_json
from nnunet_ext.labels import regions_of
from nnunet_ext.postprocessing.operations import as_json, from_json, operation_of
from nnunet_ext.postprocessing.step import PostProcessingError, SegmentedCase, Step

FILE_NAME = "postprocess.json"  # nnU-Net writes a postprocessing.json of its own
FORMAT = 1


@dataclass(frozen=True)
class PostProcessing:
    """What is applied, and why.

    Attributes:
        steps: applied one after the other; may be empty.
        dataset: `labels` and `regions_class_order` of the dataset; empty if the file does not say, as nnU-Net's.
        settings: how the ensemble was put together whose predictions they were chosen on; empty if not known.
        fitted_on: `folds`, `members`, `source`, numbers of `cases` and `patients`.
        report: every candidate with its gain, and the gain of all kept steps together, see `choice`.
    """

    steps: tuple[Step, ...]
    dataset: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, case: SegmentedCase) -> np.ndarray:
        """The labels (*spatial) after all steps; those of the case are not modified.

        Raises:
            PostProcessingError: if a step needs probabilities and the case has none.
        """
        return applied(self.steps, case).labels

    def require_labels(self, dataset_json: Mapping[str, Any]) -> None:
        """Refuses a model with other labels than those that the steps were chosen for.

        Raises:
            PostProcessingError: if its labels differ, or a step names a label that it does not have.
        """
        found = dataset_of(dataset_json)
        if self.dataset and self.dataset != found:
            raise PostProcessingError(
                f"Post-processing belongs to the labels that it was chosen for, {self.dataset}; this model has "
                f"{found}. Run nnunet_ext postprocess for this model."
            )
        known = {label for labels in regions_of(dataset_json).values() for label in labels}
        for step in self.steps:
            unknown = set(getattr(step, "labels", ())) - known
            if unknown:
                raise PostProcessingError(
                    f"Post-processing may name the labels {sorted(known)} of this model; a step for "
                    f"{step.structure} also names {sorted(unknown)}. Is it from another dataset?"
                )

    @property
    def needs_probabilities(self) -> bool:
        """Whether any step does."""
        return any(operation_of(step).needs_probabilities for step in self.steps)

    @property
    def sha256(self) -> str:
        """Hash of what is applied: the same for every file with these steps, whatever it reports."""
        text = json.dumps([as_json(step) for step in self.steps], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    def save(self, file: Path) -> None:
        """Writes the file, atomically."""
        content = {
            "format": FORMAT,
            "steps": [as_json(step) for step in self.steps],
            "dataset": self.dataset,
            "settings": self.settings,
            "fitted_on": self.fitted_on,
            "report": self.report,
        }
        write_json(without_nan(content), file)

    @classmethod
    def load(cls, file: Path) -> PostProcessing:
        """Reads what `save` wrote.

        Raises:
            PostProcessingError: if there is no such file, or it contains something else.
        """
        try:
            content = read_strict_json(file)
            if content["format"] != FORMAT:
                raise ValueError(f"the format must be {FORMAT}, found {content['format']}")
            steps = tuple(from_json(step) for step in content["steps"])
            others = {name: dict(content[name]) for name in ("dataset", "settings", "fitted_on", "report")}
        except FileNotFoundError as error:
            raise PostProcessingError(
                f"--postprocess needs a file; {file} does not exist. Run nnunet_ext postprocess with the same model "
                f"first, or give nnU-Net's own postprocessing.pkl."
            ) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PostProcessingError(
                f"{file} is not post-processing, or is damaged ({type(error).__name__}: {error}). Run nnunet_ext "
                f"postprocess again."
            ) from error
        return cls(steps, **others)


def applied(steps: Sequence[Step], case: SegmentedCase) -> SegmentedCase:
    """A case after some steps."""
    for step in steps:
        case = replace(case, labels=step(case))
    return case


def dataset_of(dataset_json: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `dataset.json` that steps depend on."""
    return {name: dataset_json[name] for name in ("labels", "regions_class_order") if name in dataset_json}
