"""What happens to a case after its last member: decide, the stages in order, embed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.inference.accumulation.case_sums import CaseSums
from nnunet_ext.inference.case_result import Stage
from nnunet_ext.inference.stages.calibrate import Calibrate
from nnunet_ext.inference.stages.decide import decide
from nnunet_ext.inference.stages.describe import Describe
from nnunet_ext.inference.stages.embed import embed
from nnunet_ext.inference.stages.postprocess import Postprocess
from nnunet_ext.labels import Region
from nnunet_ext.options import OutputOptions
from nnunet_ext.prediction_folder.case_files import CasePrediction


def stages_for(
    options: OutputOptions, calibration: Calibration | None, postprocess: Postprocess | None = None
) -> list[Stage]:
    """The stages between `decide` and `embed`, in order."""
    stages: list[Stage | None] = [
        postprocess,
        Describe(options.maps),
        Calibrate(calibration, options.maps) if calibration is not None else None,
    ]
    return [stage for stage in stages if stage is not None]


def finish(
    case: str,
    sums: CaseSums,
    structures: Mapping[str, Region],
    stages: Sequence[Stage],
    options: OutputOptions,
    *,
    fold_rows: Sequence[Mapping[str, object]] = (),
) -> CasePrediction:
    """Turns the sums over the members into everything that is written for a case.

    Args:
        case: the case's name.
        sums: the sums over all members.
        structures: name of every foreground class or region to its labels.
        stages: the stages that the segmented case passes through, in order.
        options: which maps to write, and whether to write the probabilities.
        fold_rows: the row of each fold's own members, see `described`; empty if the ensemble has one fold.

    Raises:
        RuntimeError: if no member was added to the sums.
    """
    result = replace(decide(sums, structures), fold_rows=fold_rows)
    for stage in stages:
        result = stage(result)
    return embed(result, case, options)


def described(
    sums: CaseSums, structures: Mapping[str, Region], postprocess: Postprocess | None = None
) -> Mapping[str, object]:
    """The row that a case would have if these members were the whole ensemble."""
    result = decide(sums, structures)
    return Describe(maps=())(result if postprocess is None else postprocess(result)).row
