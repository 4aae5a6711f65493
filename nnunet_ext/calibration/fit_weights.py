"""Fits a weight for each model and class or region to held-out cases, and measures the gain on cases left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nnunet_ext.calibration.ensemble_case import EnsembleCase
from nnunet_ext.calibration.ensemble_weights import LEAST_WEIGHT, EnsembleWeights, Method
from nnunet_ext.calibration.fit_checks import require_patients
from nnunet_ext.calibration.weighted_dice import dice_with, sharpened_dice
from nnunet_ext.evaluation.comparison import paired_comparison
from nnunet_ext.evaluation.held_out_parts import held_out_parts

SHARPNESS = 8.0  # of the Dice that is fitted
STOP = {"maxiter": 100, "ftol": 1e-12, "gtol": 1e-8}

Weights = np.ndarray  # (K, C), each class or region with the sum 1
Fit = Callable[[Sequence[EnsembleCase]], Weights]


@dataclass(frozen=True)
class WeightedEnsemble:
    """The models that get weights.

    Attributes:
        models: names of their folders.
        outputs: names of the classes, background first, or of the regions.
        regions: which of the two.
        settings: how members predict, see `EnsembleEngine.settings`.
        fitted_on: what to record about folds and members.
    """

    models: tuple[str, ...]
    outputs: tuple[str, ...]
    regions: bool
    settings: Mapping[str, Any]
    fitted_on: Mapping[str, Any]


def fit_ensemble_weights(
    cases: Sequence[EnsembleCase], ensemble: WeightedEnsemble, *, pull: float, best: int | None = None
) -> EnsembleWeights:
    """Fits weights to all cases, and keeps them if, fitted to other cases, they are better than equal weights.

    Better means that the interval of the mean difference in Dice, by patient, is above 0 on cases left out.

    Args:
        cases: predicted by members that were not trained on them.
        ensemble: the models.
        pull: strength of the pull to equal weights, see `learned_weights`.
        best: the number of models with the best Dice that share each class or region evenly; None learns weights.

    Raises:
        ValueError: if there are cases of fewer than two patients.
    """
    patients = require_patients("The fit of weights", [case.patient for case in cases])
    regions = ensemble.regions

    def fit(some: Sequence[EnsembleCase]) -> Weights:
        return learned_weights(some, pull, regions=regions) if best is None else best_models(some, best, regions)

    gain = held_out_gain(cases, fit, ensemble)
    fitted = fit(cases)
    kept = gain["mean"]["low"] > 0  # also False if it is NaN
    fallback: Method = "equal"
    return EnsembleWeights(
        models=ensemble.models,
        outputs=ensemble.outputs,
        regions=regions,
        values=as_rows(fitted if kept else equal_weights(cases)),
        method=("learned" if best is None else "best") if kept else fallback,
        settings=ensemble.settings,
        fitted_on={
            **ensemble.fitted_on,
            "cases": len(cases),
            "patients": patients,
            "pull": pull if best is None else None,
            "best": best,
        },
        figures={
            "fitted": dict(zip(ensemble.outputs, as_rows(fitted), strict=True)),
            "models": model_figures(cases, ensemble),
            "gain": gain,
        },
    )


def as_rows(weights: Weights) -> tuple[tuple[float, ...], ...]:
    """Weights (K, C) as one row per class or region, which has one value per model."""
    return tuple(tuple(float(value) for value in row) for row in weights.T)


def equal_weights(cases: Sequence[EnsembleCase]) -> Weights:
    """1/K for every class or region."""
    models, outputs = cases[0].probabilities.shape[:2]
    return np.full((models, outputs), 1 / models)


def learned_weights(
    cases: Sequence[EnsembleCase], pull: float, *, regions: bool, sharpness: float = SHARPNESS
) -> Weights:
    """The weights with the largest sharpened Dice, pulled to 1/K.

    They are a softmax over the models for each class or region, and minimise

        mean over classes of (1 - mean Dice of the cases that have the class) + pull * mean over classes of
        the sum over models of (weight - 1/K)²

    over the foreground classes or regions. The background gets their mean weights: of its own, one model's could
    outweigh every class that only another model finds. The search (L-BFGS) starts at equal weights, and the same
    cases give the same weights.

    Args:
        cases: of any patients.
        pull: strength of the pull, 0 or more.
        regions: whether the outputs are regions.
        sharpness: of the Dice, see `sharpened_dice`.
    """
    from scipy.optimize import minimize  # imported here, because it takes a second

    first = 0 if regions else 1
    models, outputs = cases[0].probabilities.shape[0], cases[0].probabilities.shape[1] - first
    has = torch.from_numpy(np.array([case.truth_voxels[first:] > 0 for case in cases])).double()  # (N, S)
    classes = max(int((has.sum(0) > 0).sum()), 1)
    shares = has / has.sum(0).clamp_min(1) / classes  # of each case and class in the loss

    def weights_of(parameters: torch.Tensor) -> torch.Tensor:
        return with_background(parameters.reshape(models, outputs).softmax(0), regions=regions)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.from_numpy(values).requires_grad_()
        penalty = pull * ((weights_of(parameters)[:, first:] - 1 / models) ** 2).sum(0).mean()
        gradient = torch.autograd.grad(penalty, parameters)[0]
        total = float(penalty.detach())
        for case, share in zip(cases, shares, strict=True):  # one at a time keeps memory small
            weights = weights_of(parameters)
            found = sharpened_dice(case, weights, regions=regions, sharpness=sharpness)[first:]
            missed = (share * (1 - found)).sum()
            gradient += torch.autograd.grad(missed, parameters)[0]
            total += float(missed.detach())
        return total, gradient.numpy()

    optimum = minimize(loss, np.zeros(models * outputs), jac=True, method="L-BFGS-B", options=STOP)
    return weights_of(torch.from_numpy(optimum.x)).numpy()


def with_background(weights: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """Weights (K, S) of the foreground with the background in front, (K, C): the mean; regions have none."""
    return weights if regions else torch.cat([weights.mean(1, keepdim=True), weights], dim=1)


def best_models(cases: Sequence[EnsembleCase], best: int, regions: bool) -> Weights:
    """Equal weights of the models with the best mean Dice for each class or region, 0 for the others.

    What no case has goes by the mean Dice over the foreground. The background gets the mean weights of the foreground
    classes.

    Args:
        cases: of any patients.
        best: number of models.
        regions: whether the outputs are regions.
    """
    dice = mean_over([case.model_dice for case in cases])[:, 0 if regions else 1 :]  # (K, S)
    scores = np.where(np.isnan(dice), mean_over(list(dice.T))[:, None], dice)
    order = np.argsort(-scores, axis=0, kind="stable")[:best]  # the first of equals wins
    weights = np.zeros_like(scores)
    np.put_along_axis(weights, order, 1 / best, axis=0)
    return with_background(torch.from_numpy(weights), regions=regions).numpy()


def mean_over(values: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of several arrays without NaN; NaN where all have NaN."""
    stacked = np.array(values, dtype=np.float64)
    counts = (~np.isnan(stacked)).sum(axis=0)
    return np.divide(np.nansum(stacked, axis=0), counts, out=np.full(counts.shape, np.nan), where=counts > 0)


# --- measured on cases left out of the fit ---


def held_out_gain(cases: Sequence[EnsembleCase], fit: Fit, ensemble: WeightedEnsemble) -> dict[str, Any]:
    """Dice with weights that were fitted to other patients, against equal weights, by foreground class or region.

    Returns:
        `mean` over them, and `outputs`, by name: mean Dice of `equal` and `fitted` weights, the `difference` with
        its interval from `low` to `high` by patient, and the numbers of `cases` and `patients`.
    """
    measured: list[EnsembleCase] = []
    fitted, equal = [], []
    for fitting, measuring in held_out_parts(cases):
        if not fitting:
            continue
        weights = np.maximum(fit(fitting), LEAST_WEIGHT)
        measured += measuring
        fitted += [dice_with(case, weights, regions=ensemble.regions) for case in measuring]
        equal += [dice_with(case, equal_weights(cases), regions=ensemble.regions) for case in measuring]
    first = 0 if ensemble.regions else 1
    names = ensemble.outputs[first:]
    both = np.array([fitted, equal]).reshape(2, len(measured), len(ensemble.outputs))[:, :, first:]  # (2, N, S)
    means = np.array([[mean_over(list(row)) for row in one] for one in both]).reshape(2, len(measured))
    groups = [case.patient for case in measured]
    return {
        "mean": compared(means, groups),
        "outputs": {name: compared(both[:, :, column], groups) for column, name in enumerate(names)},
    }


def compared(values: np.ndarray, patients: Sequence[str]) -> dict[str, Any]:
    """Fitted against equal weights.

    Args:
        values: (2, N), Dice of each case with fitted and with equal weights.
        patients: (N), the patient of each case.
    """
    found = paired_comparison(values[0], values[1], groups=patients)
    fitted, equal = (mean_over(list(one[:, None])) if len(one) else np.full(1, np.nan) for one in values)
    return {
        "equal": float(equal[0]),
        "fitted": float(fitted[0]),
        "difference": found.mean_difference,
        "low": found.low,
        "high": found.high,
        "cases": found.cases,
        "patients": found.groups,
    }


def model_figures(cases: Sequence[EnsembleCase], ensemble: WeightedEnsemble) -> list[dict[str, float]]:
    """The mean Dice of each model alone, by foreground class or region."""
    means = mean_over([case.model_dice for case in cases])
    foreground = ensemble.outputs[0 if ensemble.regions else 1 :]
    return [dict(zip(foreground, map(float, row[-len(foreground) :]), strict=True)) for row in means]
