"""Every operation on drawings, with results worked out by hand. A dot is background, a digit a label."""

from __future__ import annotations

import json

import numpy as np
import pytest
from drawn import case, drawing, label_map, tenths

from nnunet_ext.options import OPERATION_NAMES
from nnunet_ext.postprocessing.fill_holes import FillHoles
from nnunet_ext.postprocessing.hierarchy import Hierarchy, closed
from nnunet_ext.postprocessing.hysteresis import Hysteresis
from nnunet_ext.postprocessing.largest_component import LargestComponent
from nnunet_ext.postprocessing.minimum_size import MinimumSize
from nnunet_ext.postprocessing.operations import OPERATIONS, as_json, from_json
from nnunet_ext.postprocessing.relabel_small import RelabelSmall
from nnunet_ext.postprocessing.step import PostProcessingError, SegmentedCase
from nnunet_ext.postprocessing.structures import anatomy_of

BRATS = {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]},
    "regions_class_order": [1, 2, 3],
}
HEART = {"labels": {"background": 0, "right": 1, "wall": 2, "left": 3}}


# --- minimum size ---


def test_components_below_the_volume_are_removed():
    """Voxels of 2 x 1 x 0.5 = 1 mm³: the component of 2 mm³ goes, that of 3 mm³ stays, and so does label 2."""
    before = case("111..11..", ".......2.", spacing_mm=(2.0, 1.0, 0.5))
    assert drawing(MinimumSize("a", (1,), 0, 3.0)(before)) == ["111......", ".......2."]


def test_a_flat_image_is_a_millimetre_thick():
    """nnU-Net gives it 999 times its spacing; pixels of 1 mm²: two go, three stay."""
    before = case("111..11..", spacing_mm=(999.0, 1.0, 1.0))
    assert drawing(MinimumSize("a", (1,), 0, 3.0)(before)) == ["111......"]


def test_volumes_are_in_cubic_millimetres_also_with_anisotropic_voxels():
    """Two voxels of 5 x 1 x 1 mm are 10 mm³, more than the three of another case with 1 mm."""
    step = MinimumSize("a", (1,), 0, 10.0, keep_largest=False)
    assert drawing(step(case("11..", spacing_mm=(5.0, 1.0, 1.0)))) == ["11.."]
    assert drawing(step(case("111."))) == ["...."]


def test_a_volume_that_is_reached_up_to_rounding_stays():
    """Three voxels of 0.1 mm³ are 0.30000000000000004 or 0.3, whichever way they are added up."""
    step = MinimumSize("a", (1,), 0, 0.1 * 3, keep_largest=False)
    assert drawing(step(case("111", spacing_mm=(0.1, 1.0, 1.0)))) == ["111"]
    assert drawing(MinimumSize("a", (1,), 0, 0.3, False)(case("111", spacing_mm=(0.1, 1.0, 1.0)))) == ["111"]


@pytest.mark.parametrize(("keep_largest", "after"), [(True, "11...."), (False, "......")])
def test_the_largest_component_stays_unless_the_step_says_otherwise(keep_largest, after):
    assert drawing(MinimumSize("a", (1,), 0, 100.0, keep_largest)(case("11...1"))) == [after]


def test_voxels_that_touch_at_a_corner_are_connected():
    """Also across slices: the four voxels are one component of 4 mm³."""
    rows = ("1..", ".1.", "...", "", "...", "..1", "...", "", "...", "...", "..1")
    assert drawing(MinimumSize("a", (1,), 0, 4.0, False)(case(*rows))) == list(rows)


def test_what_is_taken_from_an_inner_region_becomes_the_region_around_it():
    """Core is 2 and 3, its lone voxel becomes 1, whole tumour only. The lone voxel of whole tumour goes."""
    _, core, _ = anatomy_of(BRATS).structures
    before = case("1331.1", "1221..", "1113..")
    assert drawing(MinimumSize("core", core.labels, core.beneath, 2.0, False)(before)) == [
        "1331.1",
        "1221..",
        "1113..",
    ]
    apart = case("1331.1", "1111..", "1113..")
    assert drawing(MinimumSize("core", core.labels, core.beneath, 2.0, False)(apart)) == [
        "1331.1",
        "1111..",
        "1111..",
    ]


# --- largest component ---


def test_only_the_largest_component_stays():
    assert drawing(LargestComponent("a", (1,))(case("11..1", "22..."))) == ["11...", "22..."]


def test_several_labels_form_one_component_and_all_of_several_largest_ones_stay():
    assert drawing(LargestComponent("a", (1, 2))(case("12.1.1", "...2.."))) == ["12.1..", "...2.."]


# --- hysteresis ---


def hysteresis(high: float, low: float | None = None) -> Hysteresis:
    return Hysteresis("a", (1,), 1, 0, 1, high, low)


def organ(*rows: str) -> np.ndarray:
    """Probabilities of background and organ (2, 1, y, x)."""
    organ_probability = tenths(*rows)
    return np.stack([1 - organ_probability, organ_probability])


def test_a_component_stays_if_it_is_confident_somewhere():
    before = case("11.11", probabilities=organ("69.67"))
    assert drawing(hysteresis(0.8)(before)) == ["11..."]


def test_with_a_low_threshold_a_confident_component_grows_over_background_only():
    """0.3 and more beside 0.9 is added, unless it is another label; 0.4 by itself has nothing confident."""
    probabilities = np.stack([*organ(".3394.4"), tenths("....6..")])
    assert drawing(hysteresis(0.8, 0.3)(case("...12..", probabilities=probabilities))) == [".1112.."]


def test_with_a_low_threshold_above_a_half_the_border_of_a_component_goes():
    before = case("1111", probabilities=organ("5796"))
    assert drawing(hysteresis(0.8, 0.65)(before)) == [".11."]


def test_hysteresis_needs_probabilities_and_thresholds_in_order():
    with pytest.raises(PostProcessingError, match="needs the probabilities"):
        hysteresis(0.8)(case("1"))
    for high, low in ((0.5, 0.6), (1.5, None), (0.0, None), (0.5, 0.0)):
        with pytest.raises(PostProcessingError, match="low not above high"):
            hysteresis(high, low)


# --- holes ---


def test_enclosed_background_is_filled_and_other_structures_in_it_stay():
    rows = ("22222", "2.3.2", "22222", "2....", "22222")
    assert drawing(FillHoles("wall", (2,), 2)(case(*rows))) == ["22222", "22322", "22222", "2....", "22222"]


def test_a_ring_that_is_open_at_a_corner_is_closed():
    """Background is connected over faces only, as structures are over corners."""
    assert drawing(FillHoles("a", (1,), 1)(case(".1.", "1.1", ".1."))) == [".1.", "111", ".1."]


@pytest.mark.parametrize(("by_slice", "filled"), [(False, "."), (True, "1")])
def test_a_tunnel_through_the_volume_is_filled_slice_by_slice_only(by_slice, filled):
    """Slices are across the axis of the largest spacing, the first."""
    ring = ("111", "1.1", "111")
    after = FillHoles("a", (1,), 1, by_slice=by_slice)(case(*ring, "", *ring, spacing_mm=(5.0, 1.0, 1.0)))
    assert drawing(after) == [*(row := ("111", f"1{filled}1", "111")), "", *row]


def test_a_ring_in_one_slice_of_a_volume_is_open_to_the_other_slices():
    empty, ring = ("...", "...", "..."), ("111", "1.1", "111")
    before = case(*empty, "", *ring, "", *empty)
    assert drawing(FillHoles("a", (1,), 1)(before)) == drawing(before.labels)


def test_a_gap_in_a_line_is_no_hole():
    assert drawing(FillHoles("a", (1,), 1)(case("1.1"))) == ["1.1"]


def test_a_hole_of_a_region_may_hold_the_region_around_it():
    """Edema that necrosis encloses becomes necrosis; the enhancing voxel belongs to the core already."""
    _, core, _ = anatomy_of(BRATS).structures
    step = FillHoles("core", core.labels, core.paint, core.beneath)
    assert drawing(step(case("2222", "21.2", "2332"))) == ["2222", "2222", "2332"]


# --- small structures ---


@pytest.mark.parametrize(("volume_mm3", "after"), [(4.0, ["1221.", ".1.1."]), (3.0, ["1331.", ".1.3."])])
def test_a_structure_below_the_volume_is_relabelled_as_a_whole(volume_mm3, after):
    """Three voxels in two components count together."""
    expected = [row.replace("3", "2") if volume_mm3 > 3 else row for row in ["1331.", ".1.3."]]
    assert drawing(RelabelSmall("enhancing", (3,), 2, volume_mm3)(case("1331.", ".1.3."))) == expected


# --- hierarchy ---

WHOLE, CORE, ENHANCING = tenths("6642."), tenths("6246."), tenths("2666.")  # in five voxels


def test_upward_a_region_has_what_its_inner_regions_have():
    nested = closed(np.stack([WHOLE, CORE, ENHANCING]), ((1, 2, 3), (2, 3), (3,)), "up")
    assert np.array_equal(nested, np.stack([tenths("6666."), tenths("6666."), ENHANCING]))


def test_downward_an_inner_region_has_nothing_that_an_outer_one_lacks():
    nested = closed(np.stack([WHOLE, CORE, ENHANCING]), ((1, 2, 3), (2, 3), (3,)), "down")
    assert np.array_equal(nested, np.stack([WHOLE, tenths("6242."), tenths("2242.")]))


@pytest.mark.parametrize("direction", ["up", "down"])
def test_closing_masks_is_the_same_as_closing_probabilities(direction):
    probabilities = np.random.default_rng(0).random((3, 4, 5, 6))
    regions = ((1, 2, 3), (2, 3), (3,))
    of_masks = closed(probabilities > 0.5, regions, direction)
    assert np.array_equal(of_masks, closed(probabilities, regions, direction) > 0.5)


@pytest.mark.parametrize(("direction", "after"), [("up", "2333."), ("down", "21...")])
def test_labels_are_decided_again(direction, after):
    """nnU-Net paints whole, core, enhancing one over the other, which is the upward closure: 2333 stays.

    Downward, voxel 1 is whole tumour only; voxels 2 and 3 have no whole tumour, so nothing is left.
    """
    (family,) = [
        family for operation in OPERATIONS[:1] for family in operation.candidates(anatomy_of(BRATS))
        if family[0].direction == direction
    ]  # fmt: skip
    probabilities = np.stack([WHOLE, CORE, ENHANCING])
    assert drawing(family[0](SegmentedCase(label_map("2333."), (1, 1, 1), probabilities))) == [after]


def test_voxels_that_an_earlier_step_changed_stay():
    step = Hierarchy("all regions", "down", ((1, 2, 3), (2, 3), (3,)), (1, 2, 3))
    before = SegmentedCase(label_map("2032."), (1, 1, 1), np.stack([WHOLE, CORE, ENHANCING]))
    assert drawing(step(before)) == ["2..2."]  # 0 and 2 differ from what was decided, 3


def test_a_hierarchy_has_two_directions():
    with pytest.raises(PostProcessingError, match="up or down; found 'left'"):
        Hierarchy("all regions", "left", ((1, 2), (2,)), (1, 2))


# --- all of them ---


def every_step():
    """With the number of outputs of its dataset."""
    return [
        (step, outputs)
        for anatomy, outputs in ((anatomy_of(BRATS), 3), (anatomy_of(HEART, [("left", "wall")]), 4))
        for operation in OPERATIONS
        for family in operation.candidates(anatomy)
        for step in family
    ]


def test_the_command_line_offers_the_operations_of_the_table():
    assert tuple(operation.name for operation in OPERATIONS) == OPERATION_NAMES


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 5), (3, 4, 5)])
def test_nothing_is_found_in_an_empty_segmentation(shape):
    for step, outputs in every_step():
        empty = SegmentedCase(np.zeros(shape, np.uint8), (1.0, 1.0, 1.0), np.full((outputs, *shape), 0.25))
        assert not step(empty).any(), step


def test_a_step_neither_modifies_its_input_nor_changes_the_type():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, (3, 6, 7)).astype(np.uint16)
    for step, outputs in every_step():
        before = SegmentedCase(labels.copy(), (3.0, 1.0, 1.0), rng.random((outputs, 3, 6, 7)))
        assert step(before).dtype == np.uint16
        assert np.array_equal(before.labels, labels), step


def test_every_step_is_the_same_after_the_file():
    for step, _ in every_step():
        assert from_json(json.loads(json.dumps(as_json(step)))) == step


@pytest.mark.parametrize("content", [{"operation": "erode"}, {}, {"operation": "minimum_size", "radius": 2}])
def test_an_unknown_step_is_refused(content):
    with pytest.raises(PostProcessingError, match=r"An operation must be one of|has other parameters"):
        from_json(content)


# --- structures and candidates ---


def test_what_lies_beneath_a_region_is_the_smallest_region_around_it():
    whole, core, enhancing = anatomy_of(BRATS).structures
    assert [(one.paint, one.beneath, one.output) for one in (whole, core, enhancing)] == [
        (1, 0, 0),
        (2, 1, 1),
        (3, 2, 2),
    ]


def test_classes_lie_on_background_and_are_in_the_order_of_the_outputs():
    shuffled = {"labels": {"left": 3, "background": 0, "right": 1, "wall": 2, "ignore": 4}}
    found = anatomy_of(shuffled).structures
    assert [(one.name, one.output, one.beneath) for one in found] == [("right", 1, 0), ("wall", 2, 0), ("left", 3, 0)]


def test_nested_regions_may_become_each_other_and_classes_only_on_request():
    def pairs(anatomy):
        return [(family[0].structure, family[0].into) for family in OPERATIONS[-1].candidates(anatomy)]

    assert pairs(anatomy_of(BRATS)) == [("core", 1), ("enhancing", 2)]
    assert pairs(anatomy_of(HEART)) == []
    assert pairs(anatomy_of(HEART, [("left", "wall")])) == [("left", 2)]
    with pytest.raises(ValueError, match="one of right, wall, left; found 'lung'"):
        anatomy_of(HEART, [("left", "lung")])


def test_the_whole_foreground_is_tried_before_single_structures_and_only_once():
    largest = next(operation for operation in OPERATIONS if operation.name == "largest_component")
    assert [family[0].labels for family in largest.candidates(anatomy_of(HEART))] == [(1, 2, 3), (1,), (2,), (3,)]
    assert [family[0].labels for family in largest.candidates(anatomy_of(BRATS))] == [(1, 2, 3), (2, 3), (3,)]
