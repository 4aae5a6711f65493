"""Cases drawn small enough to be worked out by hand; where that is long, scikit-learn or plain NumPy says."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from nnunet_ext.evaluation.case_columns import ANY_MAP, CASE_COLUMNS
from nnunet_ext.evaluation.case_metrics import Judgement, evaluate_case, masks_of, nan_mean, qu_brats_figures
from nnunet_ext.evaluation.label_maps import LabelMapPair
from nnunet_ext.evaluation.overlap_counts import joint_histogram, overlap_counts
from nnunet_ext.evaluation.results import CaseEvaluation
from nnunet_ext.evaluation.uncertainty_maps import FilteredMap, FilteringCurves, qu_brats_gain, qu_brats_score
from nnunet_ext.options import MetricOptions

CLASSES = {"organ": (1,), "lesion": (2,)}
REGIONS = {"whole": (1, 2), "core": (2,)}
SPACING_MM = (3.0, 1.0, 1.0)


def cube(*corner: int, label: int = 1, shape: tuple[int, ...] = (4, 6, 8), side: int = 2) -> np.ndarray:
    """Labels of a cube; background around it."""
    values = np.zeros(shape, dtype=np.uint8)
    values[tuple(slice(start, start + side) for start in corner)] = label
    return values


def evaluated(
    truth: np.ndarray,
    prediction: np.ndarray,
    structures=CLASSES,
    *,
    probabilities: np.ndarray | None = None,
    maps: dict[str, np.ndarray] | None = None,
    spacing_mm: tuple[float, ...] = SPACING_MM,
    **judgement,
) -> CaseEvaluation:
    pair = LabelMapPair(truth, prediction, spacing_mm)
    return evaluate_case("case", pair, Judgement(structures, **judgement), probabilities=probabilities, maps=maps)


# --- structures ---


def test_a_cube_that_is_one_voxel_too_far_to_the_side():
    """2·2·2 voxels, one x further: 4 in common, 4 missed, 4 made up at its edge. Every distance is 0 or 1 mm.

    Dice 2·4/16 = 0.5; 4 of 12 voxels are in both, IoU 1/3. 8 voxels of 3 mm³ are 0.024 ml.
    """
    result = evaluated(cube(1, 2, 2), cube(1, 2, 3))
    organ = result.structures["organ"]
    assert organ["dice"] == pytest.approx(0.5)
    assert organ["iou"] == pytest.approx(1 / 3)
    assert (organ["hd_mm"], organ["hd95_mm"]) == pytest.approx((1, 1))
    assert organ["nsd"] == 1  # all within 1 mm
    assert (organ["volume_ml"], organ["true_volume_ml"]) == pytest.approx((0.024, 0.024))
    assert (organ["volume_error_ml"], organ["relative_volume_error"]) == (0, 0)
    assert (organ["lesion_f1"], organ["lesions"], organ["lesions_missed"], organ["lesions_spurious"]) == (1, 1, 0, 0)
    assert (organ["missed_voxels"], organ["spurious_voxels"], organ["boundary_voxels"]) == (0, 0, 8)
    assert result.figures["mean_dice"] == pytest.approx(0.5)  # lesion is in neither map and has no Dice


def test_the_tolerance_of_the_surface_dice_is_passed_on():
    """One x further: the two ends are 1 mm apart."""
    truth, prediction = cube(1, 2, 2), cube(1, 2, 3)
    assert evaluated(truth, prediction, metrics=MetricOptions(nsd_tolerance_mm=0.4)).structures["organ"]["nsd"] < 1


JUDGED = ("dice", "iou", "hd95_mm", "hd_mm", "nsd", "volume_error_ml", "relative_volume_error", "lesion_f1")


def test_a_structure_that_neither_map_holds_has_no_figures():
    """One rule for all of them: not Dice left out and HD95 0."""
    result = evaluated(cube(1, 2, 2), cube(1, 2, 3))
    lesion = result.structures["lesion"]
    assert all(math.isnan(lesion[name]) for name in JUDGED)
    assert (lesion["volume_ml"], lesion["true_volume_ml"], lesion["lesions"], lesion["absent"]) == (0, 0, 0, 1)
    assert result.structures["organ"]["absent"] == 0
    assert result.figures["mean_dice"] == pytest.approx(0.5)
    assert result.figures["absent_structures"] == 1


def test_a_structure_that_neither_map_holds_may_count_as_perfect():
    """The organ's Dice is 0.5 and the lesion's 1."""
    result = evaluated(cube(1, 2, 2), cube(1, 2, 3), metrics=MetricOptions(absent="perfect"))
    lesion = result.structures["lesion"]
    assert [lesion[name] for name in JUDGED] == [1, 1, 0, 0, 1, 0, 0, 1]
    assert result.figures["mean_dice"] == pytest.approx(0.75)
    assert math.isnan(result.stock["lesion"]["Dice"])  # nnU-Net's own figures stay nnU-Net's


def test_a_structure_of_ignored_voxels_only_is_absent():
    """What the prediction says where the truth is ignored does not count."""
    truth = cube(1, 2, 2) + cube(1, 2, 5, label=3)
    prediction = cube(1, 2, 2) + cube(1, 2, 5, label=2)
    assert evaluated(truth, prediction, ignore_label=3).structures["lesion"]["absent"] == 1


def test_a_structure_that_is_missed_altogether():
    """Its distance is the diagonal of the image, 4·3 by 6 by 8 mm: √(144 + 36 + 64) = √244."""
    organ = evaluated(cube(1, 2, 2), np.zeros((4, 6, 8), np.uint8)).structures["organ"]
    assert (organ["dice"], organ["nsd"], organ["lesion_f1"]) == (0, 0, 0)
    assert (organ["hd_mm"], organ["hd95_mm"]) == pytest.approx((math.sqrt(244), math.sqrt(244)))
    assert organ["volume_error_ml"] == pytest.approx(-0.024)
    assert organ["relative_volume_error"] == -1
    assert (organ["missed_voxels"], organ["lesions_missed"]) == (8, 1)


def test_a_structure_that_is_made_up():
    organ = evaluated(np.zeros((4, 6, 8), np.uint8), cube(1, 2, 2)).structures["organ"]
    assert organ["dice"] == 0
    assert organ["hd_mm"] == pytest.approx(math.sqrt(244))
    assert math.isnan(organ["relative_volume_error"])
    assert (organ["spurious_voxels"], organ["lesions_spurious"], organ["lesions"]) == (8, 1, 0)


def test_regions_are_judged_as_unions():
    """A lesion called organ is a whole that is right and a core that is missed."""
    truth = cube(1, 2, 2) + cube(1, 2, 4, label=2)
    result = evaluated(truth, np.where(truth > 0, 1, 0), REGIONS, regions=True)
    assert (result.structures["whole"]["dice"], result.structures["core"]["dice"]) == (1, 0)
    assert result.figures == {"mean_dice": 0.5, "absent_structures": 0}  # end slices are of classes
    assert list(result.stock) == ["whole", "core"]
    assert (result.stock["whole"]["TP"], result.stock["core"]["FN"]) == (16, 8)


def test_a_2d_image_has_no_surface_in_its_plane_and_no_ends():
    """One slice (1, y, x), 2·2 pixels one x further. nnU-Net gives it 999 mm of thickness, which must not count.

    The image's diagonal, for what is missed, is that of the plane: √(6² + 8²) = 10 mm.
    """
    truth, prediction = (cube(2, x, shape=(6, 8))[None] for x in (2, 3))
    result = evaluated(truth, prediction, spacing_mm=(999.0, 1.0, 1.0))
    assert list(result.figures) == ["mean_dice", "absent_structures"]
    organ = result.structures["organ"]
    assert (organ["hd_mm"], organ["nsd"]) == pytest.approx((1, 1))
    assert organ["volume_ml"] == pytest.approx(0.004)
    missed = evaluated(truth, truth * 0, spacing_mm=(999.0, 1.0, 1.0))
    assert missed.structures["organ"]["hd_mm"] == pytest.approx(10)


def test_end_slices_in_both_variants():
    """Ten slices; organ in the slices 0 to 8, predicted in 1 to 9, all of a slice. The ends are 0, 1, 8 and 9.

    Strict: 0, 1, 1, 0. The paper counts the background (there 0 of nothing in slice 0, as all is organ: Dice 0; in
    slice 1 absent from both: 1) and the absent lesion, 1: (0 + 0 + 1)/3 in the slices 0 and 9, 1 in 1 and 8.
    """
    truth, prediction = (np.zeros((10, 2, 2), np.uint8) for _ in range(2))
    truth[:9], prediction[1:] = 1, 1
    figures = evaluated(truth, prediction).figures
    assert figures["end_slice_dice_strict"] == pytest.approx(0.5)
    assert figures["end_slice_dice_paper"] == pytest.approx((1 / 3 + 1 + 1 + 1 / 3) / 4)


ALONG_X, ALONG_Y = (1, 2, 0), (1, 0, 2)  # axes of a stack (slices, h, w) whose slices come to lie along x or y


@pytest.mark.parametrize(("axes", "axis"), [(ALONG_X, 2), (ALONG_Y, 1)])
def test_the_same_anatomy_with_its_stack_along_another_axis_has_the_same_ends(axes, axis):
    """The plans say along which axis, and without them the largest spacing does."""
    truth, prediction = (np.zeros((10, 3, 4), np.uint8) for _ in range(2))
    truth[:9, 1:], prediction[1:, 1:] = 1, 1
    upright = evaluated(truth, prediction, spacing_mm=(8.0, 1.0, 1.0)).figures
    assert upright["end_slice_dice_strict"] == pytest.approx(0.5)  # 0, 1, 1, 0 as above
    spacing_mm = tuple(8.0 if each == axis else 1.0 for each in range(3))
    turned = [values.transpose(axes) for values in (truth, prediction)]
    assert evaluated(*turned, spacing_mm=spacing_mm).figures == pytest.approx(upright)
    assert evaluated(*turned, spacing_mm=(1.0, 1.0, 1.0), stack_axis=axis).figures == pytest.approx(upright)


def test_the_plans_count_before_the_spacing():
    truth = cube(1, 2, 2, shape=(1, 6, 8), side=1)
    assert "end_slice_dice_paper" not in evaluated(truth, truth, stack_axis=0).figures  # a single slice
    assert "end_slice_dice_paper" in evaluated(truth, truth, stack_axis=1).figures


def test_ends_may_be_those_of_the_true_foreground():
    """Truth in the slices 2 to 7 of ten; the prediction lacks 2, which only the ends of the foreground show."""
    truth = np.zeros((10, 2, 2), np.uint8)
    truth[2:8] = 1
    prediction = truth.copy()
    prediction[2] = 0
    assert math.isnan(evaluated(truth, prediction).figures["end_slice_dice_strict"])
    found = evaluated(truth, prediction, metrics=MetricOptions(end_stack="foreground")).figures
    assert found["end_slice_dice_strict"] == pytest.approx(0.75)


# --- ignore label ---


def test_voxels_of_the_ignore_label_could_hold_anything():
    """Whatever a prediction, a probability or a map says there, every figure stays."""
    rng = np.random.default_rng(0)
    truth, prediction = cube(1, 2, 2), cube(1, 2, 3)
    truth[:, 0], truth[3, 5] = 3, 3
    ignored = truth == 3
    probabilities = rng.dirichlet([1, 1, 1], truth.shape).transpose(3, 0, 1, 2)
    maps = {"entropy": rng.random(truth.shape), "confidence": rng.random(truth.shape)}
    one = evaluated(truth, prediction, ignore_label=3, probabilities=probabilities, maps=maps)
    other = evaluated(
        truth,
        np.where(ignored, 2, prediction),
        ignore_label=3,
        probabilities=np.where(ignored, 1 / 3, probabilities),
        maps={name: np.where(ignored, 0.5, values) for name, values in maps.items()},
    )
    assert one.structures["organ"]["dice"] == pytest.approx(0.5)
    np.testing.assert_equal(other.structures, one.structures)
    np.testing.assert_equal(other.figures, one.figures)
    np.testing.assert_equal(other.stock, one.stock)
    np.testing.assert_array_equal(other.reliability.counts, one.reliability.counts)


def test_where_nothing_is_ignored_an_ignore_label_changes_nothing():
    truth, prediction = cube(1, 2, 2), cube(1, 2, 3)
    maps = {"entropy": np.linspace(0, 1, truth.size).reshape(truth.shape)}
    found, without = (evaluated(truth, prediction, maps=maps, ignore_label=label) for label in (3, None))
    np.testing.assert_equal(vars(found) | {"slices": None}, vars(without) | {"slices": None})
    np.testing.assert_equal(vars(found.slices), vars(without.slices))


# --- probabilities ---


def test_without_probabilities_and_maps_there_are_no_figures_of_them():
    result = evaluated(cube(1, 2, 2), cube(1, 2, 3))
    assert list(result.figures) == [
        "mean_dice", "absent_structures", "end_slice_dice_paper", "end_slice_dice_strict"
    ]  # fmt: skip
    assert result.reliability is None


def test_probabilities_are_judged_in_the_box_of_the_truths_foreground():
    """The box is the cube, all organ, with p = 0.7 for it; what is said elsewhere does not count.

    ECE |1 - 0.7| = 0.3; Brier 0.3² + 0.2² + 0.1² = 0.14; NLL -ln 0.7. Class-wise: background |0 - 0.2|, organ 0.3,
    lesion 0.1; all voxels of a class are in one bin, so ACE is the same.
    """
    truth = cube(1, 2, 2)
    probabilities = np.zeros((3, *truth.shape), np.float32)
    probabilities[2] = 1  # wrong, and outside
    probabilities[:, truth == 1] = np.array([[0.2], [0.7], [0.1]])
    result = evaluated(truth, truth, probabilities=probabilities)
    figures = result.figures
    assert figures["ece"] == pytest.approx(0.3, abs=1e-6)
    assert figures["class_wise_ece"] == pytest.approx(0.6 / 3, abs=1e-6)
    assert figures["ace"] == pytest.approx(0.6 / 3, abs=1e-6)
    assert figures["brier"] == pytest.approx(0.14, abs=1e-6)
    assert figures["nll"] == pytest.approx(-math.log(0.7), abs=1e-6)
    assert (result.reliability.counts.sum(), result.reliability.correct.sum()) == (8, 8)


def test_probabilities_of_regions():
    """In the box of 16 voxels whole has 0.9 and is everywhere; core has 0.4 and is in half of it.

    Brier 2·(0.1² + (0.6² + 0.4²)/2)/2 = 0.27. ECE: whole |1 - 0.9|, core is called "out" with 0.6, half right: 0.1.
    """
    truth = cube(1, 2, 2) + cube(1, 2, 4, label=2)
    probabilities = np.stack([np.full(truth.shape, 0.9), np.full(truth.shape, 0.4)])
    result = evaluated(truth, truth, REGIONS, regions=True, probabilities=probabilities)
    assert list(result.figures) == ["mean_dice", "absent_structures", "ece", "brier", "nll"]
    assert result.figures["brier"] == pytest.approx(0.27)
    assert result.figures["ece"] == pytest.approx(0.1)
    nll = -(math.log(0.9) + (math.log(0.4) + math.log(0.6)) / 2) / 2
    assert result.figures["nll"] == pytest.approx(nll)
    assert result.reliability.counts.sum() == 2 * 16


@pytest.mark.parametrize("regions", [False, True])
def test_an_empty_truth_has_no_calibration(regions):
    """There is no box; the volume is left out of means, and has no part in the reliability diagram."""
    truth = np.zeros((4, 6, 8), np.uint8)
    probabilities = np.full((2 if regions else 3, *truth.shape), 0.3)
    result = evaluated(
        truth, cube(1, 2, 2), REGIONS if regions else CLASSES, regions=regions, probabilities=probabilities
    )
    names = ["ece", "brier", "nll"] if regions else ["ece", "class_wise_ece", "ace", "brier", "nll"]
    assert all(math.isnan(result.figures[name]) for name in names)
    assert result.reliability is None


# --- maps ---


def test_maps_are_held_against_the_errors_in_the_box_of_both_foregrounds():
    """Truth and prediction together are 2·2·3 voxels, of which 8 are wrong."""
    truth, prediction = cube(1, 2, 2), cube(1, 2, 3)
    values = np.random.default_rng(0).random(truth.shape)
    figures = evaluated(truth, prediction, maps={"entropy": values}).figures
    box = np.s_[1:3, 2:4, 2:5]
    wrong = (truth != prediction)[box].ravel()
    assert (wrong.size, wrong.sum()) == (12, 8)
    assert figures["entropy_error_auroc"] == pytest.approx(roc_auc_score(wrong, values[box].ravel()))
    assert figures["entropy_error_ap"] == pytest.approx(average_precision_score(wrong, values[box].ravel()))


def test_the_columns_of_a_case_are_those_that_the_reference_describes():
    probabilities = np.full((3, *cube(1, 2, 2).shape), 1 / 3)
    truth = cube(1, 2, 2)
    found = evaluated(truth, truth, probabilities=probabilities, maps={"entropy": np.zeros(truth.shape)}).figures
    assert [name.replace("entropy", ANY_MAP) for name in found] == [row.column for row in CASE_COLUMNS]


def test_a_map_of_confidence_is_turned_round():
    truth, prediction = cube(1, 2, 2), cube(1, 2, 3)
    values = np.random.default_rng(0).random(truth.shape)
    figures = evaluated(truth, prediction, maps={"entropy": values, "confidence": 1 - values}).figures
    for key in ("error_auroc", "error_ap", "qu_brats", "qu_brats_gain"):
        assert figures[f"confidence_{key}"] == pytest.approx(figures[f"entropy_{key}"])


@pytest.mark.parametrize(
    ("absent", "score"),
    [("leave-out", 2.5 / 3), ("perfect", (2.5 / 3 + 1) / 2)],
)
def test_a_map_that_is_zero_scores_what_dice_gives(absent, score):
    """(Dice + 2)/3 with Dice 0.5 for the organ; the lesion, which is nowhere, is left out or has Dice 1; no gain."""
    truth, prediction = cube(1, 2, 2), cube(1, 2, 3)
    metrics = MetricOptions(absent=absent)
    figures = evaluated(truth, prediction, maps={"entropy": np.zeros(truth.shape)}, metrics=metrics).figures
    assert figures["entropy_qu_brats"] == pytest.approx(score)
    assert figures["entropy_qu_brats_gain"] == pytest.approx(0)


def test_the_score_of_a_map_is_the_mean_over_the_structures_that_are_there():
    truth = cube(1, 2, 2) + cube(0, 0, 0, label=2)
    prediction = cube(1, 2, 3) + cube(0, 0, 1, label=2)
    values = np.random.default_rng(0).random(truth.shape)
    box = np.s_[0:3, 0:4, 0:5]
    masks = [((prediction == label)[box], (truth == label)[box]) for label in (1, 2)]
    figures = evaluated(truth, prediction, {**CLASSES, "vessel": (3,)}, maps={"entropy": values}).figures
    for key, metric in (("qu_brats", qu_brats_score), ("qu_brats_gain", qu_brats_gain)):
        assert figures[f"entropy_{key}"] == pytest.approx(fmean(metric(values[box], *pair) for pair in masks))


def test_labels_that_are_nowhere_do_not_change_the_figures_of_a_map():
    truth, prediction = cube(1, 2, 2), cube(1, 2, 3)
    maps = {"entropy": np.random.default_rng(0).random(truth.shape)}
    alone = evaluated(truth, prediction, {"organ": (1,)}, maps=maps).figures
    among = evaluated(truth, prediction, {f"label {label}": (label,) for label in range(1, 21)}, maps=maps).figures
    names = [name for name in alone if name.startswith("entropy")]
    assert {name: among[name] for name in names} == {name: alone[name] for name in names}


class CountedMap(FilteredMap):
    """A map that counts how often curves are asked for."""

    asked = 0

    def curves(self, prediction: np.ndarray, truth: np.ndarray) -> FilteringCurves:
        self.asked += 1
        return super().curves(prediction, truth)


def test_score_and_gain_are_of_the_same_curves_of_each_structure_that_is_there():
    truth, prediction = np.array([[[1, 2, 0]]]), np.array([[[1, 0, 2]]])
    structures = {**CLASSES, "vessel": (3,)}
    histogram = joint_histogram(truth, prediction)
    counts = {name: overlap_counts(histogram, labels) for name, labels in structures.items()}
    counted = CountedMap(np.zeros(truth.shape))
    assert qu_brats_figures(counted, prediction, truth, counts, Judgement(structures)) == {
        "qu_brats": pytest.approx((1 + 2 / 3) / 2),  # Dice 1 and 0
        "qu_brats_gain": 0,
    }
    assert counted.asked == 2


def test_a_map_has_no_figures_where_there_is_nothing_to_segment():
    truth = np.zeros((4, 6, 8), np.uint8)
    figures = evaluated(truth, truth, maps={"entropy": np.zeros(truth.shape)}).figures
    assert all(math.isnan(value) for name, value in figures.items() if name.startswith("entropy"))
    assert math.isnan(figures["mean_dice"])


def test_where_nothing_is_to_segment_a_map_is_perfect_if_what_is_absent_is():
    truth, metrics = np.zeros((4, 6, 8), np.uint8), MetricOptions(absent="perfect")
    figures = evaluated(truth, truth, maps={"entropy": np.ones(truth.shape)}, metrics=metrics).figures
    assert (figures["mean_dice"], figures["entropy_qu_brats"], figures["entropy_qu_brats_gain"]) == (1, 1, 0)


# --- parts ---


def test_masks_of_regions():
    masks = masks_of(np.array([[[0, 1, 2]]]), REGIONS)
    assert masks.tolist() == [[[[False, True, True]]], [[[False, False, True]]]]


def test_the_mean_of_nothing_is_not_defined():
    assert nan_mean([math.nan, 1, 3]) == 2
    assert math.isnan(nan_mean([math.nan]))
    assert math.isnan(nan_mean([]))
