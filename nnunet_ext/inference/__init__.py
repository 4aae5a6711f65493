"""Prediction with uncertainty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_ext.inference.predictor import EnsemblePredictor

__all__ = ["EnsemblePredictor"]


def __getattr__(name: str) -> Any:
    """Imports the predictor when it is asked for: it takes seconds, and evaluation needs only its neighbours."""
    if name != "EnsemblePredictor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nnunet_ext.inference.predictor import EnsemblePredictor

    return EnsemblePredictor
