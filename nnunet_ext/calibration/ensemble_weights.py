"""Class-wise or region-wise weights of several models, as one JSON file for `nnunet_ext predict --weights`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from nnunet_ext.files.atomic import without_nan, write_json
from nnunet_ext.files.strict_json import read_strict_json
from nnunet_ext.options.recorded_settings import differences

KIND = "ensemble weights"
FORMAT = 1
# With a weight of 0, a voxel could lose all its classes, each to a model that has no weight for it. With this least
# weight, the models then count there as with equal weights.
LEAST_WEIGHT = 1e-6
# Settings of an ensemble that change what its members say; what follows them does not matter to the weights.
SETTINGS = (
    "members",
    "average",
    "tta",
    "tta_members",
    "mirroring",
    "step_size",
    "fast_resampling",
    "early_exit",
    "adapt",
)

Method = Literal["learned", "best", "equal"]


class EnsembleWeightsError(ValueError):
    """Weights that are missing, damaged, or were fitted for another ensemble."""


@dataclass(frozen=True)
class EnsembleWeights:
    """A weight for each model and class or region, and what it was fitted on.

    Attributes:
        models: names of the model folders, in their order.
        outputs: names of the classes, background first, or of the regions.
        regions: which of the two.
        values: one row per class or region with one weight per model; each row adds up to 1.
        method: "learned", "best" for the models with the best Dice, or "equal" if neither was better than that.
        settings: how members predict, see `EnsembleEngine.settings`; those of `SETTINGS` must be the same.
        fitted_on: `folds`, `members` (model, name and SHA-256), numbers of `cases` and `patients`, `pull`, `best`.
        figures: the weights that were `fitted`, also if they are not used; Dice of the `models`; and the `gain` on
            cases left out of the fit.
    """

    models: tuple[str, ...]
    outputs: tuple[str, ...]
    regions: bool
    values: tuple[tuple[float, ...], ...]
    method: Method
    settings: Mapping[str, Any]
    fitted_on: Mapping[str, Any]
    figures: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"The method must be one of {', '.join(get_args(Method))}; found {self.method!r}.")
        if len(self.values) != len(self.outputs):
            raise ValueError(
                f"Every one of {len(self.outputs)} outputs needs weights; found {len(self.values)} rows."
            )
        for name, row in zip(self.outputs, self.values, strict=True):
            valid = len(row) == len(self.models) and all(0 <= value < math.inf for value in row)
            if not valid or not math.isclose(sum(row), 1, abs_tol=1e-4):
                raise ValueError(
                    f"The weights of {name} must be {len(self.models)} numbers of 0 or more that add up to 1; found "
                    f"{list(row)}."
                )

    def by_model(self) -> list[tuple[float, ...]]:
        """The weights of each model, one per class or region, none below `LEAST_WEIGHT`."""
        return [tuple(max(value, LEAST_WEIGHT) for value in column) for column in zip(*self.values, strict=True)]

    def require_models(self, models: Sequence[str]) -> None:
        """Refuses other models than those that were fitted, or another order.

        Raises:
            EnsembleWeightsError: if the names of the folders differ.
        """
        if tuple(models) != self.models:
            raise EnsembleWeightsError(
                f"Weights belong to the models that they were fitted for, in this order: {', '.join(self.models)}; "
                f"found {', '.join(models)}. Give these folders with -m, or run nnunet_ext weights with yours."
            )

    def require_outputs(self, outputs: Sequence[str]) -> None:
        """Refuses models of other classes or regions.

        Raises:
            EnsembleWeightsError: if the names differ.
        """
        if tuple(outputs) != self.outputs:
            raise EnsembleWeightsError(
                f"Weights belong to the classes or regions that they were fitted for, {', '.join(self.outputs)}; "
                f"found {', '.join(outputs)}. Run nnunet_ext weights with these models."
            )

    def require_settings(self, settings: Mapping[str, Any]) -> None:
        """Refuses members that predict differently from those that were fitted.

        Raises:
            EnsembleWeightsError: if a setting differs.
        """
        compared = ({name: value for name, value in all_of.items() if name in SETTINGS}
                    for all_of in (self.settings, settings))  # fmt: skip
        for name, fitted, asked in differences(*compared):
            raise EnsembleWeightsError(
                f"Weights belong to the ensemble that they were fitted for; its {name} is {fitted!r}, this "
                f"ensemble's is {asked!r}. Predict with the same value, or run nnunet_ext weights with these flags."
            )

    def require_members(self, members: Iterable[tuple[str, str, str]]) -> None:
        """Refuses members that were retrained since the fit.

        Args:
            members: model, name and SHA-256 of each. Members of folds that were not fitted are accepted.

        Raises:
            EnsembleWeightsError: if a member has the name of one that was fitted, but is another file.
        """
        files = {(member["model"], member["name"]): member["sha256"] for member in self.fitted_on["members"]}
        for model, name, sha256 in members:
            if files.get((model, name), sha256) != sha256:
                raise EnsembleWeightsError(
                    f"Weights belong to the checkpoints that they were fitted for; {model}/{name} is another file "
                    f"now, for instance after retraining. Run nnunet_ext weights again."
                )

    @property
    def sha256(self) -> str:
        """Hash of the content, the same for weights in memory and for every copy of their file."""
        text = json.dumps(without_nan(self.as_json()), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """The content that `save` writes."""
        return {
            "kind": KIND,
            "format": FORMAT,
            "models": list(self.models),
            "outputs": list(self.outputs),
            "regions": self.regions,
            "weights": {name: list(row) for name, row in zip(self.outputs, self.values, strict=True)},
            "method": self.method,
            "settings": dict(self.settings),
            "fitted_on": dict(self.fitted_on),
            "figures": dict(self.figures),
        }

    def save(self, file: Path) -> None:
        """Writes the file, atomically."""
        write_json(without_nan(self.as_json()), file)

    @classmethod
    def load(cls, file: Path) -> EnsembleWeights:
        """Reads what `save` wrote.

        Raises:
            EnsembleWeightsError: if there is no such file, or it contains something else.
        """
        if not file.is_file():
            raise EnsembleWeightsError(
                f"--weights needs numbers or a file of weights; {file} does not exist. Run nnunet_ext weights with "
                f"the same models first."
            )
        try:
            content = read_strict_json(file)
            found = content["kind"], content["format"]
            if found != (KIND, FORMAT):
                raise ValueError(f"kind and format must be {KIND} and {FORMAT}, found {found[0]} and {found[1]}")
            outputs = tuple(content["outputs"])
            weights = cls(
                models=tuple(content["models"]),
                outputs=outputs,
                regions=bool(content["regions"]),
                values=tuple(tuple(float(value) for value in content["weights"][name]) for name in outputs),
                method=content["method"],
                settings=content["settings"],
                fitted_on=content["fitted_on"],
                figures=content["figures"],
            )
            weights.require_members(())
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise EnsembleWeightsError(
                f"{file} does not hold the weights that nnunet_ext weights writes, or is damaged "
                f"({type(error).__name__}: {error}). Run nnunet_ext weights again."
            ) from error
        return weights


def holds_ensemble_weights(content: object) -> bool:
    """Whether the content of a JSON file says that `nnunet_ext weights` wrote it."""
    return isinstance(content, Mapping) and content.get("kind") == KIND
