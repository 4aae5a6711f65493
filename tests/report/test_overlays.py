from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from nnunet_ext.report.contact_sheet import LABEL_COLOURS
from nnunet_ext.report.overlays import (
    data_uri,
    grey,
    label_colour,
    outline,
    picture_size,
    resized_labels,
    with_segmentation,
    with_uncertainty,
)

BLACK = np.zeros((6, 6, 3))


def test_pictures_have_the_proportions_of_the_body():
    assert picture_size((40, 40), (1.0, 2.0)) == (128, 256)  # 40 mm high, 80 mm wide
    assert picture_size((10, 10), (1.0, 1.0)) == (256, 256)


def test_the_window_ends_at_black_and_white():
    values = grey(np.array([[-5.0, 0.0, 5.0, 10.0, 20.0]]), (0.0, 10.0), (1, 5))
    np.testing.assert_allclose(values[0, :, 0], [0, 0, 0.5, 1, 1])


def test_a_constant_image_is_drawn():
    assert np.isfinite(grey(np.ones((2, 2)), (1.0, 1.0), (2, 2))).all()


def test_a_label_is_outlined_in_its_colour_two_pixels_thick():
    labels = np.zeros((6, 6), dtype=int)
    labels[1:6, 1:6] = 2
    picture = with_segmentation(BLACK, labels, None)
    np.testing.assert_allclose(picture[1, 3], to_rgb(LABEL_COLOURS[1]))
    np.testing.assert_allclose(picture[2, 3], to_rgb(LABEL_COLOURS[1]))
    assert (picture[4, 4] < 0.3).all()  # within: a fifth of the colour on black
    assert not picture[0, 0].any()


def test_the_edge_of_the_picture_is_no_outline():
    assert not outline(np.ones((4, 4), dtype=bool)).any()


def test_the_border_of_the_truth_is_white():
    truth = np.zeros((6, 6), dtype=int)
    truth[2:4, 2:4] = 1
    picture = with_segmentation(BLACK, np.zeros((6, 6), dtype=int), truth)
    assert (picture[2:4, 2:4] == 1).all()
    assert not picture[0].any()


def test_what_is_certain_shows_the_image_as_it_is():
    background = np.full((2, 2, 3), 0.4)
    picture = with_uncertainty(background, np.array([[0.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(picture[0, 0], 0.4, atol=0.05)
    assert picture[1, 1, 0] > 0.9  # the bright end of the colours


def test_enlarged_labels_keep_their_values_and_places():
    enlarged = resized_labels(np.array([[0, 7], [0, 7]]), (8, 8))
    np.testing.assert_array_equal(enlarged, np.repeat([[0] * 4 + [7] * 4], 8, axis=0))


def test_labels_have_the_colours_of_the_contact_sheet_in_turn():
    assert [label_colour(label) for label in (1, 7, 8)] == [LABEL_COLOURS[0], LABEL_COLOURS[6], LABEL_COLOURS[0]]


def test_a_picture_survives_its_way_into_the_page():
    picture = np.zeros((32, 48, 3))
    picture[:, 16:32] = (1.0, 0.0, 1.0)
    kind, _, text = data_uri(picture).partition(",")
    assert kind == "data:image/webp;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))
    np.testing.assert_allclose(pixels[16, [8, 24, 40]], 255 * picture[16, [8, 24, 40]], atol=6)
