from __future__ import annotations

import base64
import io

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from PIL import Image

from nnunet_ext.report.atlas import Grid, channel_atlas, label_atlas, label_step, map_atlas
from nnunet_ext.report.case_volumes import CaseVolumes, read_volumes
from nnunet_ext.report.data import ReportCase
from nnunet_ext.report.volumes import reduction, scaled, view_box, view_volumes, within_limits

SPACING_MM = (1.0, 8.0, 2.0)  # z, y, x
ONE_CELL = Grid.of(1, (2, 2))
EVERYTHING = 10**9


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA"))


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).random(shape)


def large_case(slices: int = 6, side: int = 100) -> CaseVolumes:
    """Noise, which no file makes small."""
    shape = (slices, side, side)
    return CaseVolumes(np.ones(shape, dtype=np.uint8), (noise(shape), noise(shape)), {"entropy": noise(shape)})


@pytest.mark.parametrize(
    ("stack_axis", "shape", "spacing_mm"),
    [(0, (2, 3, 4), (8, 2)), (2, (4, 2, 3), (1, 8)), (None, (3, 2, 4), (1, 2))],
)
def test_the_axis_of_the_slices_comes_first(tmp_path, stack_axis, shape, spacing_mm):
    """That of the plans, otherwise that of the largest spacing, here y; NIfTI stores (x, y, z)."""
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    file = tmp_path / "heart.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([*SPACING_MM[::-1], 1.0])), file)
    case = ReportCase({"case": "heart"}, file, {"entropy": file}, (file,), truth=file)
    volumes = read_volumes(case, NibabelIO(), stack_axis)
    assert (volumes.segmentation.shape, volumes.spacing_mm) == (shape, spacing_mm)
    expected = values.swapaxes(0, 1) if stack_axis is None else values.transpose(2, 0, 1) if stack_axis else values
    for found in (volumes.segmentation, volumes.channels[0], volumes.uncertainty, volumes.truth):
        np.testing.assert_array_equal(found, expected)


def test_slices_lie_row_by_row_in_cells_that_start_at_multiples_of_eight():
    """4 x 9 pixels and a margin of 2 all around."""
    grid = Grid.of(5, (4, 9))
    assert grid.cell == (8, 16)
    assert grid.columns == 2  # 2 x 16 wide and 3 x 8 high
    atlas = grid.atlas(np.arange(1, 6)[:, None, None] * np.ones((1, 4, 9)), lambda values, _: values.astype(np.uint8))
    assert atlas.shape == (24, 32)
    np.testing.assert_array_equal(atlas[::8, ::16], [[1, 2], [3, 4], [5, 0]])


def test_around_a_slice_its_edge_is_repeated():
    atlas = Grid.of(1, (2, 2)).atlas(np.array([[[1, 2], [3, 4]]]), lambda values, _: values.astype(np.uint8))
    assert atlas.shape == (8, 8)
    np.testing.assert_array_equal(
        atlas[[0, 2, 3, 7]][:, [0, 2, 3, 7]], np.repeat([[1, 1, 2, 2], [3, 3, 4, 4]], 2, axis=0)
    )


def test_a_channel_is_grey_between_the_ends_of_its_window():
    volume = np.repeat([0.0, 50.0, 100.0], 144).reshape(3, 12, 12)
    atlas = pixels(channel_atlas(volume, Grid.of(3, (12, 12)), 85))[..., 0]
    np.testing.assert_allclose([atlas[8, 8], atlas[8, 24], atlas[24, 8]], [0, 127.5, 255], atol=3)


def test_labels_are_exact_and_far_apart_in_grey():
    """Of three labels the second is 2 x 85."""
    labels = np.array([[[0, 4], [9, 5]]])
    atlas = pixels(label_atlas(labels, np.array([4, 5, 9]), ONE_CELL))
    assert label_step(3) == 85
    np.testing.assert_array_equal(atlas[2:4, 2:4, 0], [[0, 85], [255, 170]])


def test_a_map_is_transparent_where_it_is_certain_and_opaque_where_it_is_not():
    atlas = pixels(map_atlas(np.array([[[0.0, 0.25], [1.0, 7.0]]]), ONE_CELL, 64))
    np.testing.assert_allclose(atlas[2:4, 2:4, 3], [[0, 127.5], [255, 255]], atol=3)  # root of the value


def test_what_fits_keeps_its_resolution():
    view = view_volumes(large_case(), {2: ["most uncertain"]}, EVERYTHING)
    assert view.grid.size == (100, 100)
    assert view.grid.slices == 6
    assert view.reduction == ""
    assert view.start == 3
    assert len(view.data["channels"]) == 2
    assert [layer["name"] for layer in view.data["maps"]] == ["entropy"]


@pytest.mark.parametrize("share", [0.7, 0.3, 0.1])
def test_what_does_not_fit_loses_resolution_in_the_plane_and_no_slice(share):
    full = view_volumes(large_case(), {2: ["most uncertain"]}, EVERYTHING)
    view = view_volumes(large_case(), {2: ["most uncertain"]}, int(share * full.size))
    assert share * full.size / 2 < view.size <= share * full.size
    assert view.grid.slices == 6
    assert view.grid.size < (100, 100)
    assert "per pixel instead of 1 × 1 mm" in view.reduction


@pytest.mark.parametrize("budget", [500, 0, -1])
def test_where_nothing_could_be_recognised_there_is_no_view(budget):
    assert view_volumes(large_case(), {2: ["most uncertain"]}, budget) is None


def test_the_reduction_is_said_in_mm():
    assert reduction((100, 200), (50, 100), (0.7, 1.4)) == "2.8 × 1.4 mm per pixel instead of 1.4 × 0.7 mm"


def test_the_largest_sizes_are_those_that_browsers_decode():
    assert within_limits((100, 100), 50) == (100, 100)
    assert within_limits((1024, 512), 1) == (512, 256)
    assert within_limits((400, 400), 400) == (200, 200)  # 400 slices of 200 x 200 are 16 million pixels


def test_a_pixel_remains_of_a_thin_image():
    assert scaled((200, 1), 0.5) == (100, 1)


def test_a_small_image_is_shown_whole_and_a_large_one_cut_to_foreground_truth_and_great_uncertainty():
    mask, truth, entropy = np.zeros((3, 2, 400, 400))
    mask[0, 100:150, 100:150] = 1
    assert view_box(CaseVolumes(mask[:, :128, :128])) == (slice(0, 128), slice(0, 128))
    assert view_box(CaseVolumes(mask)) == (slice(90, 160), slice(90, 160))  # a fifth on each side
    truth[1, 150:200, 150:200] = 1
    assert view_box(CaseVolumes(mask, truth=truth)) == (slice(80, 220), slice(80, 220))
    entropy[1, 299, 299] = 0.9
    assert view_box(CaseVolumes(mask, truth=truth, maps={"entropy": entropy})) == (slice(60, 340), slice(60, 340))


def test_of_many_labels_as_many_are_outlined_as_a_byte_tells_apart():
    labels = np.arange(300).reshape(1, 10, 30)
    view = view_volumes(CaseVolumes(labels), {0: ["middle"]}, EVERYTHING)
    assert len(view.colours) == 255
