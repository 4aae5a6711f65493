"""What a prediction folder holds, for the reference: its files, the columns of `cases.csv`, the words of `flags`."""

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
        only_with: flag or command without which the column is not there; empty if it always is.
    """

    name: str
    values: str
    meaning: str
    empty: str = "never"
    only_with: str = ""

    @property
    def calibrated(self) -> bool:
        """Whether the column is there with `--calibrated` only."""
        return self.only_with == "--calibrated"


@dataclass(frozen=True)
class FolderFile:
    """One file of a prediction folder, or one for each case, map or member.

    Attributes:
        name: with `<ending>`, that of the dataset's images, and CASE and NAME.
        when: it is written.
        content: what it holds.
    """

    name: str
    when: str
    content: str


# fmt: off
FILES: tuple[FolderFile, ...] = (
    FolderFile("CASE<ending>", "always",
               "segmentation, in the dataset's format, as stock writes it; with `--postprocess` the processed one"),
    FolderFile("maps/NAME/CASE<ending>", "`--maps NAME`; `entropy` by default",
               "one map, float32 (or what `--map-dtype` says), in the geometry of the image; PNG and BMP hold no "
               "floats: those datasets get `.tif`; 3D TIFF datasets get `CASE.json` with the spacing beside it, as "
               "in nnU-Net"),
    FolderFile("maps/error/CASE<ending>", "`nnunet_ext error-map apply`",
               "probability that the voxel is wrong, float32, 0 to 1"),
    FolderFile("error_map.csv", "`nnunet_ext error-map apply`",
               "one row per case: `expected_dice`, number of `slices`, `flagged_slices` (from 0 along the stack, `;` "
               "between), `largest_slice_score`"),
    FolderFile("error_map.json", "`nnunet_ext error-map apply`",
               "the error model's folder, and what `error-map fit` fitted to it"),
    FolderFile("cases.csv", "always", "one row per case; rewritten after every case"),
    FolderFile("cases_part<id>of<n>.csv", "`-num_parts` above 1",
               "rows of one part; merged into `cases.csv` when the part ends"),
    FolderFile("CASE.npz", "`--save_probabilities`",
               "stock's format: the array `probabilities` (C, z, y, x), float32, in the axes of nnU-Net's reader; C "
               "counts the network's outputs: classes with background, or regions; not changed by `--postprocess`"),
    FolderFile("CASE.pkl", "`--save_probabilities`", "what nnU-Net recorded about the image, as stock writes it"),
    FolderFile("CASE.dcm", "`--dicom-seg`",
               "of a DICOM series: the segmentation as a DICOM object (SEG) that refers to it, one segment per class "
               "or region"),
    FolderFile("members/NAME/CASE<ending>", "`--save_members`",
               "the segmentation of one member alone, and of each classifier of a mixture"),
    FolderFile("covering_masks/CASE<ending>", "`--calibrated`, if the calibration has a threshold for them",
               "1 where foreground of any label may be, else 0"),
    FolderFile("report.html", "`nnunet_ext report`", "one page about the folder, with nothing to load"),
    FolderFile("predict_args.json", "always",
               "all arguments; versions of nnunet_ext, nnunetv2, torch, numpy and Python; each member's name, file, "
               "SHA-256, trainer and configuration; and under `ensemble` how they are put together"),
    FolderFile("dataset.json", "always", "that of the (first) model, as stock"),
    FolderFile("plans.json", "always", "that of the (first) model, as stock"),
)

COLUMNS: tuple[Column, ...] = (
    Column("case", "", "name of the case"),
    Column("members", "from 1", "members that were averaged; with `--tta-members` each test-time transform is one"),
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
           "standard deviation of the members' volumes (with M, not M - 1, in the denominator) divided by their mean",
           "with one member, or if no member has the label"),
    Column("adapted_members", "from 0",
           "with `--adapt` only: members whose adapted prediction is used; the others kept the unadapted one",
           only_with="--adapt"),
    Column("not_adapted", "sentences, `; ` between",
           "with `--adapt` only: each member that kept its unadapted prediction, and what jumped",
           "all members were adapted", only_with="--adapt"),
    Column("judged_confidence", "as the calibration's column",
           "the confidence that predicted Dice and verdict are based on: the column that `calibrate` chose; with "
           "several folds the mean of the folds' own values, each from its own members",
           "not defined, as a column of disagreement with one member per fold", only_with="--calibrated"),
    Column("predicted_dice", "0 to 1", "mean foreground Dice that is predicted for a case of this confidence",
           "there is no estimate: the confidence is outside the range of the calibration cases or not defined",
           only_with="--calibrated"),
    Column("predicted_dice_low", "0 to 1", "lower end of its interval, at the level that `calibrate` was given",
           "there is no estimate, or calibration had too few patients for an interval", only_with="--calibrated"),
    Column("predicted_dice_high", "0 to 1", "upper end", "likewise", only_with="--calibrated"),
    Column("verdict", "`accept`, `review`, `reject`", "what to do with the case", only_with="--calibrated"),
    Column("verdict_reason", "sentences, `; ` between", "why, the worst first", only_with="--calibrated"),
    Column("expected_dice", "0 to 1", "Dice of the whole foreground that the error map expects; after "
           "`nnunet_ext error-map apply`", "nothing is segmented and no error expected",
           only_with="error-map apply"),
    Column("flagged_slices", "from 0", "number of slices that seem wrong; after `nnunet_ext error-map apply`",
           only_with="error-map apply"),
    Column("flags", "words, `;` between", "what to know before trusting the other numbers", "nothing to say"),
)

FLAGS: dict[str, str] = {
    "empty_segmentation": "the segmentation has no foreground at all",
    "all_members_empty": "no member by itself has any foreground: `pairwise_dice` is 1 because no member disagrees, "
                         "not because all is well",
    "low_expected_dice": "the error map expects a Dice below the failure Dice",
    "wrong_slices": "the error map flags slices",
}
# fmt: on
