"""How good predictions are."""

from __future__ import annotations

from nnunet_ext.evaluation.calibration_error import expected_calibration_error
from nnunet_ext.evaluation.end_slices import end_coefficient
from nnunet_ext.evaluation.failure_detection import augrc, aurc, excess_aurc

__all__ = ["augrc", "aurc", "end_coefficient", "excess_aurc", "expected_calibration_error"]
