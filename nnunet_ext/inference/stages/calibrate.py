"""The stage that applies what `nnunet_ext calibrate` fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.calibration.risk_control import foreground_probability
from nnunet_ext.inference.accumulation.maps import maps_of_mean
from nnunet_ext.inference.accumulation.slabs import MappedVolume, Slab, for_each_slab
from nnunet_ext.inference.case_result import CaseResult


@dataclass(frozen=True)
class Calibrate:
    """Calibrates the probabilities and the maps derived from them; adds predicted Dice, verdict and covering mask.

    The segmentation and the other columns of the row are unchanged, because the calibration was fitted on them.

    Attributes:
        calibration: the calibration that was fitted for this ensemble.
        maps: names of the maps that are written.
    """

    calibration: Calibration
    maps: Sequence[str]

    def __call__(self, result: CaseResult) -> CaseResult:
        """The calibrated result."""
        covering_mask = self._covering_mask(result)
        probabilities = MappedVolume(result.probabilities, self.calibration.temperature.apply)
        changed = maps_of_mean(probabilities, result.frame.box_shape, self.maps, regions=result.has_regions)
        mask = self.calibration.mask
        return replace(
            result,
            probabilities=probabilities,
            maps={**result.maps, **changed},
            row={**result.row, **self.calibration.columns(result.row, result.fold_rows)},
            covering_mask=covering_mask,
            covered_outside=0 if mask is None else int(mask.threshold == 0),
        )

    def _covering_mask(self, result: CaseResult) -> np.ndarray | None:
        """(*box): 1 where foreground may be; from the uncalibrated probabilities, on which the mask was fitted."""
        threshold = self.calibration.mask
        if threshold is None:
            return None
        covered = np.empty(result.frame.box_shape, np.uint8)

        def cover(slab: Slab) -> None:
            foreground = foreground_probability(slab.values.cpu().numpy(), regions=result.has_regions)
            covered[slab.where] = threshold.mask(foreground)

        for_each_slab(result.probabilities, cover)
        return covered
