"""Gives each pass of an ensemble the class-wise weights of its model, as `nnunet_ext weights` fitted them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nnunet_ext.calibration.ensemble_weights import EnsembleWeights
from nnunet_ext.inference.passes import Pass
from nnunet_ext.labels import LabelScheme, regions_of
from nnunet_ext.models.model import Model


def require_fitted_for(weights: EnsembleWeights, models: Sequence[Model], settings: Mapping[str, Any]) -> None:
    """Refuses weights that were fitted for another ensemble.

    Args:
        weights: the fitted weights.
        models: the models that predict.
        settings: of the ensemble, see `EnsembleEngine.settings`.

    Raises:
        EnsembleWeightsError: if models, classes or settings differ, or a member was retrained.
    """
    weights.require_models([model.folder.name for model in models])
    weights.require_outputs(list(output_scheme(models[0]).outputs()))
    weights.require_settings(settings)
    weights.require_members(
        (model.folder.name, member.name, member.sha256) for model in models for member in model.members
    )


def output_scheme(model: Model) -> LabelScheme:
    """What the outputs of a model stand for."""
    return LabelScheme(regions_of(model.dataset_json), model.labels.has_regions, model.labels.ignore_label)


def with_class_weights(passes: Sequence[Sequence[Pass]], weights: EnsembleWeights) -> list[list[Pass]]:
    """The passes of each model, which share the model's weights evenly.

    Args:
        passes: the passes of each model.
        weights: fitted for these models, in the same order.
    """
    return [
        [replace(step, class_weights=tuple(value / len(of_model) for value in values)) for step in of_model]
        for of_model, values in zip(passes, weights.by_model(), strict=True)
    ]


def class_totals(steps: Iterable[tuple[int, Pass]]) -> tuple[float, ...] | None:
    """The sum over some passes of their weights for each class or region; None if each has one weight for all.

    Args:
        steps: the passes, each with the position of its model.
    """
    weights = [step.class_weights for _, step in steps]
    found = [values for values in weights if values is not None]
    return tuple(map(sum, zip(*found, strict=True))) if found else None
