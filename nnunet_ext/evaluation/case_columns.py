"""The columns of `case_metrics.csv`: which end of each is good, for ranks, and what the reference says about them."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ext.evaluation.structure_metrics import Better

ANY_MAP = "MAP"  # stands for the name of a map in the names of columns


@dataclass(frozen=True)
class CaseColumn:
    """One column of `case_metrics.csv`, or one for each map.

    Attributes:
        column: its name.
        better: which end of its range is good; None if neither.
        values: what it can be, with its unit.
        when: it is there.
        meaning: what it is.
    """

    column: str
    better: Better | None
    values: str
    when: str
    meaning: str


STACKS = "classes, and more than one slice"
PROBABILITIES = "`CASE.npz` is there"
CLASS_PROBABILITIES = "`CASE.npz` of classes is there"
MAPS = "`maps/MAP/` is there"

# fmt: off
CASE_COLUMNS: tuple[CaseColumn, ...] = (
    CaseColumn("mean_dice", "higher", "0 to 1", "always",
               "mean over the structures that truth or prediction have; over all with `--absent perfect`"),
    CaseColumn("absent_structures", None, "from 0", "always",
               "how many structures neither truth nor prediction has"),
    CaseColumn("end_slice_dice_paper", "higher", "0 to 1", STACKS,
               "mean Dice of the end slices, background and absent classes included"),
    CaseColumn("end_slice_dice_strict", "higher", "0 to 1", STACKS,
               "mean Dice of the end slices over the foreground that is there"),
    CaseColumn("ece", "lower", "0 to 1", PROBABILITIES,
               "expected calibration error, in the bounding box of the true foreground; this and the next four are "
               "not defined if the truth has none"),
    CaseColumn("class_wise_ece", "lower", "0 to 1", CLASS_PROBABILITIES, "class-wise calibration error"),
    CaseColumn("ace", "lower", "0 to 1", CLASS_PROBABILITIES, "average calibration error"),
    CaseColumn("brier", "lower", "0 to 2", PROBABILITIES, "Brier score"),
    CaseColumn("nll", "lower", "0 to 16.1 nats", PROBABILITIES, "negative log-likelihood"),
    CaseColumn("MAP_error_auroc", "higher", "0 to 1, chance 0.5", MAPS,
               "whether wrong voxels are less certain than right ones, in the box of what truth and prediction call "
               "foreground, as in the next three; `confidence` counts as 1 - confidence"),
    CaseColumn("MAP_error_ap", "higher", "0 to 1, chance is the share of wrong voxels", MAPS,
               "average precision of the wrong voxels"),
    CaseColumn("MAP_qu_brats", "higher", "0 to 1", MAPS,
               "QU-BraTS score, mean over the structures that truth or prediction have; with `--absent perfect` over "
               "all, absent ones with score 1 and gain 0"),
    CaseColumn("MAP_qu_brats_gain", "higher", "-1 to 1/3", MAPS,
               "that score minus that of an all-zero map; below 0 the map does harm"),
)
# fmt: on
