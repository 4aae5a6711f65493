"""From the sums over the members to the ensemble's probabilities and segmentation."""

from __future__ import annotations

from collections.abc import Mapping

from nnunet_ext.inference.accumulation.case_sums import CaseSums
from nnunet_ext.inference.case_result import CaseResult
from nnunet_ext.labels import Region


def decide(sums: CaseSums, structures: Mapping[str, Region]) -> CaseResult:
    """The result of a case after its last member.

    Args:
        sums: the sums over all members.
        structures: name of every foreground class or region to its labels.

    Raises:
        RuntimeError: if no member was added.
    """
    probabilities = sums.probabilities()
    segmentation = sums.segmentation(probabilities)  # held sums have members and maps only from here on
    variance = sums.transform_variance
    return CaseResult(
        frame=sums.frame,
        structures=structures,
        moments=sums.moments,
        members=sums.members,
        member_segmentations=sums.member_segmentations,
        probabilities=probabilities,
        segmentation=segmentation,
        maps={
            **sums.maps(),
            **({} if variance is None else {"tta_variance": variance.as_map()}),
            **({} if sums.memory is None else sums.memory.as_maps()),
        },
    )
