"""The last stage: places volumes of the predicted box in the whole image, ready to be written."""

from __future__ import annotations

from nnunet_ext.inference.accumulation.maps import OUTSIDE
from nnunet_ext.inference.case_result import CaseResult
from nnunet_ext.options import OutputOptions
from nnunet_ext.prediction_folder.case_files import CasePrediction


def embed(result: CaseResult, case: str, options: OutputOptions) -> CasePrediction:
    """Everything that is written for a case, at the size of the whole image.

    Args:
        result: the result after all other stages.
        case: the case's name.
        options: which maps to write, and whether to write the probabilities.
    """
    frame = result.frame
    mask = result.covering_mask
    return CasePrediction(
        case=case,
        segmentation=frame.embedded(result.segmentation),
        properties=frame.properties,
        row=dict(result.row),
        maps={name: frame.embedded(result.maps[name], OUTSIDE.get(name, 0.0)) for name in options.maps},
        probabilities=frame.embedded_probabilities(result.all_probabilities(), regions=result.has_regions)
        if options.save_probabilities
        else None,
        member_segmentations=result.member_segmentations,
        covering_mask=None if mask is None else frame.embedded(mask, result.covered_outside),
    )
