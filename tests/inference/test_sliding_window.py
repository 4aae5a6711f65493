"""Tiles, mirroring and blending: by hand, and against nnU-Net with fp32 in place of half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_ext.inference.runtimes.batch_size import BatchSize, batch_size_for
from nnunet_ext.inference.sliding_window import sliding_window_logits, tile_image, tiles_of
from nnunet_ext.inference.transforms.flip import IDENTITY, Flip, flips

CPU = torch.device("cpu")


class Constant(nn.Module):
    """Says −2, 0.5 and 7 about every voxel."""

    def forward(self, patch: torch.Tensor) -> torch.Tensor:
        values = torch.tensor([-2.0, 0.5, 7.0]).reshape(1, 3, *[1] * (patch.ndim - 2))
        return values.repeat(len(patch), 1, *patch.shape[2:])


class AddsRamp(nn.Module):
    """Adds the column's index within the patch: something that mirroring has to undo."""

    def forward(self, patch: torch.Tensor) -> torch.Tensor:
        return patch + torch.arange(patch.shape[-1], dtype=patch.dtype)


class Copies(nn.Module):
    """Returns its input, in memory of its own as any network does, and notes how many patches it is given."""

    def __init__(self, most: int = 1000) -> None:
        super().__init__()
        self.most = most
        self.batches: list[int] = []

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        if len(patches) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        self.batches.append(len(patches))
        return patches.clone()


# --- tiles ---


def test_tiles_are_spread_evenly_with_at_most_the_given_step():
    """nnU-Net's example: 110 voxels, patch 64, step 32 at most: 46 voxels in 2 steps of 23. 64 voxels: one tile."""
    tiles = list(tiles_of((2, 110, 64), (64, 64), 0.5))
    starts = [(tile[0], tile[1].start, tile[2].start) for tile in tiles]
    assert starts == [(0, 0, 0), (0, 23, 0), (0, 46, 0), (1, 0, 0), (1, 23, 0), (1, 46, 0)]
    assert all(tile[1].stop - tile[1].start == 64 for tile in tiles)


@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize(("shape", "patch"), [((5, 20, 33), (16, 16)), ((11, 20, 33), (8, 16, 16))])
def test_every_voxel_has_a_positive_weight(shape, patch, gaussian):
    tiled = tile_image(torch.zeros((1, *shape)), patch, gaussian=gaussian)
    assert tiled.weight.shape == shape
    assert tiled.weight.min() > 0
    assert tiled.window.dtype == tiled.weight.dtype == torch.float32


def test_an_image_smaller_than_the_patch_is_padded_on_both_sides_and_cropped_again():
    """10 to 16 rows: 3 above and 3 below; 13 to 16 columns: 1 before and 2 behind."""
    image = torch.arange(1.0, 131).reshape(1, 1, 10, 13)
    tiled = tile_image(image, (16, 16))
    assert tiled.image.shape == (1, 1, 16, 16)
    torch.testing.assert_close(tiled.image[:, :, 3:13, 1:14], image)
    assert tiled.image.sum() == image.sum()  # zeros around it
    cropped = (slice(None), *tiled.crop)
    torch.testing.assert_close(tiled.image[cropped], image)


def test_each_tile_is_predicted_once_per_flip():
    network = Copies()
    tiled = tile_image(torch.zeros(1, 3, 24, 16), (16, 16))  # 2 tiles in each of 3 slices
    sliding_window_logits(network, tiled, flips((0, 1)), batch_size=BatchSize(8))
    assert sum(network.batches) == 3 * 2 * 4


# --- batches ---


def test_tiles_and_flips_share_batches():
    """3 tiles with 2 flips each in batches of 4: a tile's copies may be in different ones."""
    network = Copies()
    image = torch.arange(3.0 * 16 * 16).reshape(1, 3, 16, 16)
    logits = sliding_window_logits(
        network, tile_image(image, (16, 16)), [IDENTITY, Flip((1,))], batch_size=BatchSize(4)
    )
    assert network.batches == [4, 2]
    torch.testing.assert_close(logits, image)


def test_batches_have_as_many_voxels_whatever_the_patch():
    """2^19 voxels on a CPU: 8 patches of 256 x 256, and never less than one."""
    assert batch_size_for((256, 256), CPU) == BatchSize(8)
    assert batch_size_for((128, 128, 128), CPU) == BatchSize(1)


def test_a_batch_that_does_not_fit_is_halved_until_it_does(caplog):
    """6 patches where 2 fit: 6 and 3 fail, and no patch is lost or counted twice."""
    network = Copies(most=2)
    image = torch.arange(6.0 * 16 * 16).reshape(1, 6, 16, 16)
    size = BatchSize(6)
    logits = sliding_window_logits(network, tile_image(image, (16, 16)), [IDENTITY], batch_size=size)
    assert network.batches == [1] * 6
    assert size.patches == 1, "the next member must not try again what did not fit"
    torch.testing.assert_close(logits, image)
    assert "A batch of 6 patches does not fit into memory; continuing with 3." in caplog.text


def test_a_patch_that_does_not_fit_alone_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        sliding_window_logits(
            Copies(most=0), tile_image(torch.zeros(1, 1, 16, 16), (16, 16)), [IDENTITY], batch_size=BatchSize(8)
        )


# --- blending ---


@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize(
    ("shape", "patch"),
    [
        pytest.param((3, 21, 30), (16, 16), id="2d"),
        pytest.param((3, 5, 30), (16, 16), id="2d smaller than the patch"),
        pytest.param((11, 21, 18), (8, 16, 16), id="3d"),
        pytest.param((4, 21, 9), (8, 16, 16), id="3d smaller than the patch"),
    ],
)
def test_a_constant_network_gives_its_constant_everywhere(shape, patch, gaussian):
    tiled = tile_image(torch.rand((2, *shape)), patch, gaussian=gaussian)
    logits = sliding_window_logits(Constant(), tiled, flips((0, 1)), batch_size=BatchSize(8))
    expected = torch.tensor([-2.0, 0.5, 7.0]).reshape(3, 1, 1, 1).expand(3, *shape)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("shape", "patch"), [((3, 21, 30), (16, 16)), ((11, 21, 13), (8, 16, 16))])
def test_a_network_that_returns_its_input_gives_the_image_back(shape, patch):
    """Every tile lands where it was cut out, whatever the weights and the mirroring."""
    image = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    logits = sliding_window_logits(Copies(), tile_image(image, patch), flips((0, 1)), batch_size=BatchSize(8))
    torch.testing.assert_close(logits, image, rtol=1e-5, atol=1e-6)


def test_overlapping_tiles_are_weighted_by_the_window():
    """6 columns, patch 4, step 2: tiles at 0 and 2. A ramp that starts anew in each tile gives, in column 3, the
    ramp's 3 of the first tile and 1 of the second, weighed by the window's columns 3 and 1."""
    tiled = tile_image(torch.zeros(1, 1, 4, 6), (4, 4))
    logits = sliding_window_logits(AddsRamp(), tiled, [IDENTITY], batch_size=BatchSize(8))
    window = tiled.window.numpy()
    expected = (3 * window[:, 3] + 1 * window[:, 1]) / (window[:, 3] + window[:, 1])
    np.testing.assert_allclose(logits[0, 0, :, 3], expected, rtol=1e-6)
    assert window[2, 2] == window.max() == 10  # nnU-Net's centre and its scale


# --- stock nnU-Net ---

STOCK_CASES = [
    pytest.param("2d", (4, 21, 30), id="2d"),
    pytest.param("2d", (3, 10, 30), id="2d smaller than the patch"),
    pytest.param("3d_fullres", (11, 21, 18), id="3d"),
    pytest.param("3d_fullres", (4, 21, 9), id="3d smaller than the patch"),
]


@pytest.mark.parametrize("mirroring", [True, False])
@pytest.mark.parametrize(("configuration", "shape"), STOCK_CASES)
def test_logits_and_labels_are_those_of_stock_nnunet(
    make_model_folder, stock_predictor, configuration, shape, mirroring
):
    axes = (0, 1) if configuration == "2d" else (0, 1, 2)
    folder = make_model_folder(configuration=configuration, mirror_axes=axes, channels=2, logit_scale=1)
    stock = stock_predictor(folder, exact=True, use_mirroring=mirroring)
    image = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    expected = stock.predict_sliding_window_return_logits(image)
    tiled = tile_image(image, stock.configuration_manager.patch_size)
    logits = sliding_window_logits(stock.network, tiled, flips(axes, enabled=mirroring), batch_size=BatchSize(8))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert torch.equal(logits.argmax(0), expected.argmax(0))


@pytest.mark.parametrize(("step_size", "gaussian"), [(0.75, True), (1.0, True), (0.5, False)])
def test_step_and_window_are_those_of_stock_nnunet(make_model_folder, stock_predictor, step_size, gaussian):
    folder = make_model_folder(logit_scale=1)
    stock = stock_predictor(folder, exact=True, tile_step_size=step_size, use_gaussian=gaussian)
    image = torch.randn((1, 2, 37, 30), generator=torch.Generator().manual_seed(0))
    expected = stock.predict_sliding_window_return_logits(image)
    tiled = tile_image(image, (16, 16), step_size=step_size, gaussian=gaussian)
    logits = sliding_window_logits(stock.network, tiled, flips((0, 1)), batch_size=BatchSize(8))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
