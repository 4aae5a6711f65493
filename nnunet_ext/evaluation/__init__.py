"""How good predictions are."""

from __future__ import annotations

from nnunet_ext.evaluation.end_slices import end_coefficient

__all__ = ["end_coefficient"]
