"""From images to segmentations with uncertainty."""

from __future__ import annotations

from nnunet_ext.inference.predictor import EnsemblePredictor

__all__ = ["EnsemblePredictor"]
