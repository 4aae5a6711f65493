"""The columns of `cases.csv` and the words of its column `flags`, for the reference."""

from __future__ import annotations

from dataclasses import dataclass

ANY_LABEL = "<label>"  # stands for the name of a label or region in the names of columns


@dataclass(frozen=True)
class Column:
    """One column of `cases.csv`, or one for each label or region.

    Attributes:
        name: of the column.
        values: what it can be, with its unit.
        meaning: what it is.
        empty: when its cell is empty, which means: not defined.
        calibrated: it is there with `--calibrated` only.
    """

    name: str
    values: str
    meaning: str
    empty: str = "never"
    calibrated: bool = False


# fmt: off
COLUMNS: tuple[Column, ...] = (
    Column("case", "", "name of the case"),
    Column("members", "from 1", "members that were averaged; with `--tta-members` each flip is one"),
    Column("mean_entropy", "0 to 1",
           "mean of the map `entropy` over all voxels of the image, those outside of nnU-Net's crop included"),
    Column("foreground_entropy", "0 to 1",
           "mean of the map `entropy` over the segmentation's foreground; if there is none, `mean_entropy`"),
    Column("mutual_information", "0 to 1", "mean of the map `mutual_information` over all voxels of the image",
           "with one member"),
    Column("pairwise_dice", "0 to 1",
           "mean over all pairs of members of the mean Dice over the labels (or regions); a label that both of a "
           "pair leave out does not count for that pair, and a pair without any label has Dice 1",
           "with one member"),
    Column("volume_ml_<label>", "from 0, ml",
           "volume of the label (of the whole region) in the segmentation; a 2D image counts as 1 mm thick, and "
           "without a spacing in mm, as with PNG, the number counts in thousands of pixels"),
    Column("volume_cv_<label>", "from 0",
           "standard deviation of the members' volumes (by M, not M - 1) by their mean",
           "with one member, or if no member has the label"),
    Column("predicted_dice", "0 to 1", "mean foreground Dice that is predicted for a case of this confidence",
           "there is no estimate: the confidence is outside the range of the calibration cases, or not defined",
           calibrated=True),
    Column("predicted_dice_low", "0 to 1", "lower end of its interval, at the level that `calibrate` was given",
           "there is no estimate, or calibration had too few patients for an interval", calibrated=True),
    Column("predicted_dice_high", "0 to 1", "upper end", "likewise", calibrated=True),
    Column("verdict", "`accept`, `review`, `reject`", "what to do with the case", calibrated=True),
    Column("verdict_reason", "sentences, `; ` between", "why, the worst first", calibrated=True),
    Column("flags", "words, `;` between", "what to know before trusting the other numbers", "nothing to say"),
)

FLAGS: dict[str, str] = {
    "empty_segmentation": "the segmentation has no foreground at all",
    "all_members_empty": "no member by itself has any foreground: `pairwise_dice` is 1 because no member disagrees, "
                         "not because all is well",
}
# fmt: on
