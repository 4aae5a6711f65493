"""From a network's axes and resolution back to the image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.inference.accumulation.resampling import (
    box_shape,
    common_box,
    crop_box,
    image_shape,
    in_image,
    in_whole_image,
    outside_probabilities,
    place,
)
from nnunet_ext.inference.accumulation.slabs import TransposedVolume, WholeVolume, assembled

SHAPE = (6, 14, 10)  # (z, y, x)
SPACING_MM = (4.0, 1.5, 0.8)
BOX = (slice(1, 6), slice(0, 12), slice(3, 9))  # where the image is not zero


def properties_of(transpose_forward: Sequence[int]) -> dict[str, Any]:
    """What nnU-Net's preprocessing records: spacing in the image's axes, the rest in the transposed ones."""
    box = [BOX[axis] for axis in transpose_forward]
    return {
        "spacing": list(SPACING_MM),
        "shape_before_cropping": tuple(SHAPE[axis] for axis in transpose_forward),
        "bbox_used_for_cropping": [[part.start, part.stop] for part in box],
        "shape_after_cropping_and_before_resampling": tuple(part.stop - part.start for part in box),
    }


# --- axes and crop ---


@pytest.mark.parametrize("transpose_forward", list(permutations(range(3))))
def test_transposing_and_cropping_are_undone(transpose_forward):
    """Every voxel has a value of its own, so that only the right place gives the right image."""
    plans = SimpleNamespace(transpose_backward=np.argsort(transpose_forward).tolist())
    properties = properties_of(transpose_forward)
    image = np.arange(1, 1 + np.prod(SHAPE)).reshape(SHAPE)
    transposed_box = tuple(slice(*bounds) for bounds in properties["bbox_used_for_cropping"])
    seen = image.transpose(transpose_forward)[transposed_box]

    back = TransposedVolume(WholeVolume(torch.from_numpy(seen[None].copy())), plans.transpose_backward)
    restored = assembled(back, (1, *box_shape(BOX)))[0].numpy()
    assert image_shape(properties, plans) == SHAPE
    assert crop_box(properties, plans) == BOX
    np.testing.assert_array_equal(restored, image[BOX])
    whole = in_whole_image(restored, crop_box(properties, plans), SHAPE, fill=0)
    np.testing.assert_array_equal(whole[BOX], image[BOX])
    assert np.count_nonzero(whole) == image[BOX].size


def test_embed_keeps_the_type_and_fills_the_rest():
    full = in_whole_image(np.full((1, 2), 7, np.uint8), (slice(1, 2), slice(0, 2)), (2, 3), fill=1)
    assert full.tolist() == [[1, 1, 1], [7, 7, 1]]
    assert full.dtype == np.uint8


def test_the_common_box_holds_all_boxes():
    first = (slice(0, 4), slice(2, 5))
    second = (slice(1, 6), slice(3, 4))
    assert common_box([first, second]) == (slice(0, 6), slice(2, 5))
    assert common_box([first, first]) == first


def test_outside_of_the_box_is_background_for_certain():
    """A box of one voxel in a frame of two by two."""
    probabilities = torch.tensor([0.2, 0.5, 0.3]).reshape(3, 1, 1)
    target = (slice(4, 6), slice(8, 10))
    placed = place(probabilities, (slice(5, 6), slice(8, 9)), target, outside_probabilities(3, regions=False))
    assert placed[:, 1, 0].tolist() == pytest.approx([0.2, 0.5, 0.3])
    for row, column in ((0, 0), (0, 1), (1, 1)):
        assert placed[:, row, column].tolist() == [1, 0, 0]


def test_outside_of_the_box_is_in_no_region():
    placed = place(torch.ones(2, 1), (slice(0, 1),), (slice(0, 2),), outside_probabilities(2, regions=True))
    assert placed.tolist() == [[1, 0], [1, 0]]


def test_a_box_that_is_the_whole_is_not_copied():
    volume = torch.zeros(2, 3)
    assert place(volume, (slice(0, 3),), (slice(0, 3),), torch.zeros(2)) is volume


# --- resampling ---


def in_image_axes(logits, properties, plans, configuration, box):
    """Logits resampled to the image's box, (3, *box)."""
    return assembled(in_image(logits, properties, plans, configuration), (3, *box_shape(box)))


@pytest.mark.parametrize(
    ("configuration", "spacing_mm", "transpose_forward", "network_shape"),
    [
        # 2D in slices along the image's x axis (0.8 mm apart): y 12·1.5/2 = 9, z 5·4/2 = 10
        pytest.param("2d", [2.0, 2.0], (2, 1, 0), (6, 9, 10), id="2d"),
        # 2D with rows 3.5 mm apart, slices 4 mm: the slices' distance decides that rows are interpolated
        pytest.param("2d", [3.5, 0.8], (0, 1, 2), (5, 5, 6), id="2d with coarse rows"),
        # x, z, y: 6·0.8/1.2 = 4, 5·4/5 = 4, 12·1.5/1 = 18; anisotropic, so along z the nearest voxel counts
        pytest.param("3d_fullres", [1.2, 5.0, 1.0], (2, 0, 1), (4, 4, 18), id="3d"),
        # as the image: nothing to resample
        pytest.param("3d_fullres", [4.0, 1.5, 0.8], (0, 1, 2), (5, 12, 6), id="same spacing"),
    ],
)
def test_probabilities_in_the_image_are_those_that_stock_nnunet_exports(
    make_model_folder, configuration, spacing_mm, transpose_forward, network_shape
):
    folder = make_model_folder(
        configuration=configuration, spacing_mm=spacing_mm, transpose_forward=transpose_forward, folds=()
    )
    plans = PlansManager(str(folder / "plans.json"))
    planned, labels = (
        plans.get_configuration(configuration),
        plans.get_label_manager({"labels": {"background": 0, "left": 1, "right": 2}}),
    )
    properties = properties_of(transpose_forward)
    logits = torch.randn((3, *network_shape), generator=torch.Generator().manual_seed(0))
    _, expected = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits.clone(), plans, planned, labels, properties, return_probabilities=True, num_threads_torch=1
    )

    box = crop_box(properties, plans)
    resampled = in_image_axes(logits.clone(), properties, plans, planned, box)
    whole = tuple(slice(0, size) for size in SHAPE)
    placed = place(torch.softmax(resampled, 0), box, whole, outside_probabilities(3, regions=False))
    np.testing.assert_allclose(placed, expected, atol=1e-6)


def test_logits_that_are_the_same_everywhere_stay_so(make_model_folder):
    folder = make_model_folder(
        configuration="3d_fullres", spacing_mm=[1.2, 5.0, 1.0], transpose_forward=(2, 0, 1), folds=()
    )
    plans = PlansManager(str(folder / "plans.json"))
    logits = torch.tensor([-3.0, 0.25, 8.0]).reshape(3, 1, 1, 1).repeat(1, 4, 4, 18)
    properties = properties_of((2, 0, 1))
    box = crop_box(properties, plans)
    resampled = in_image_axes(logits, properties, plans, plans.get_configuration("3d_fullres"), box)
    torch.testing.assert_close(
        resampled, torch.tensor([-3.0, 0.25, 8.0]).reshape(3, 1, 1, 1).expand(3, *box_shape(box))
    )
