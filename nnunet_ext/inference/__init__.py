"""Prediction with uncertainty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_ext.inference.accumulation.moments import Moments
    from nnunet_ext.inference.predictor import EnsemblePredictor

__all__ = ["EnsemblePredictor", "Moments"]


def __getattr__(name: str) -> Any:
    """Imports a name on first use, because importing nnU-Net's predictor takes seconds."""
    if name == "EnsemblePredictor":
        from nnunet_ext.inference.predictor import EnsemblePredictor

        return EnsemblePredictor
    if name == "Moments":
        from nnunet_ext.inference.accumulation.moments import Moments

        return Moments
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
