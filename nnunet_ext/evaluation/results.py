"""The results of an evaluation; other modules compute, write and draw them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnunet_ext.evaluation.overlap_counts import OverlapCounts
from nnunet_ext.evaluation.reliability import ReliabilityBins
from nnunet_ext.evaluation.wrong_slices import SliceFigures
from nnunet_ext.labels import Region

Figures = dict[str, float]  # name of a metric to its value; NaN where the case defines none


@dataclass(frozen=True)
class CaseEvaluation:
    """One case.

    Attributes:
        case: its name.
        structures: name of a foreground class or region to its figures: `dice`, `hd95_mm`, `nsd` and so on.
        figures: those of the case as a whole: `mean_dice`, `end_slice_dice_paper`, `ece`, `entropy_error_auroc` etc.
        stock: the case's entry in `summary.json`, as nnU-Net's evaluation writes it.
        reliability: bins of the voxels in the bounding box of the true foreground; None without probabilities.
        counts: name of a structure to its voxel counts.
        fold: name of its fold in a cross-validation; empty if there is none.
        slices: Dice of its slices and how wrong each map calls them; None without maps.
        member_dice: name of a member to the mean Dice of its own segmentation; empty without `--save_members`.
    """

    case: str
    structures: dict[str, Figures]
    figures: Figures
    stock: dict[Any, Any]
    reliability: ReliabilityBins | None = None
    counts: Mapping[str, OverlapCounts] = field(default_factory=dict)
    fold: str = ""
    slices: SliceFigures | None = field(default=None, compare=False)  # arrays
    member_dice: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FolderEvaluation:
    """All cases of a folder.

    Attributes:
        structures: name of every foreground class or region to its labels.
        cases: by name; those with a problem are missing.
        problems: name of a case or file to what is wrong with it.
        not_predicted: cases with ground truth that are left out, as is allowed with `--chill`, or because a fold's
            validation folder contains the cases of that fold only.
    """

    structures: Mapping[str, Region]
    cases: list[CaseEvaluation]
    problems: dict[str, str] = field(default_factory=dict)
    not_predicted: tuple[str, ...] = ()

    def column(self, figure: str) -> list[float]:
        """A case-level figure, in the order of `cases`; NaN where a case lacks it."""
        return [case.figures.get(figure, float("nan")) for case in self.cases]

    @property
    def reliability(self) -> ReliabilityBins | None:
        """The bins of all cases together; None if no case has probabilities."""
        bins = [case.reliability for case in self.cases if case.reliability is not None]
        return sum(bins[1:], bins[0]) if bins else None
