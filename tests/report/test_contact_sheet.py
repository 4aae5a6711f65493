from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread

from nnunet_ext.report.contact_sheet import SheetRow, contact_sheet, label_colours, most_uncertain_slice


def row(title: str = "case\nDice 0.90", shape: tuple[int, int, int] = (3, 20, 24), peak: float = 0.9) -> SheetRow:
    z, y, x = np.indices(shape)
    labels = (x // 6).astype(np.uint8)  # 0 to 3 from left to right
    entropy = np.where(z == 1, peak * y / shape[1], 0.0)
    return SheetRow(title, x + 0.5 * y, labels, labels, entropy, 0.5 * entropy, aspect=1.2)


def test_writes_a_png_as_wide_as_a_screen(tmp_path):
    contact_sheet([row(), row("another")], {1: "RV", 2: "MYO", 3: "LV"}, tmp_path / "sheet.png")
    height, width, _ = imread(tmp_path / "sheet.png").shape
    assert 1500 <= width <= 1800
    assert height > 500


def test_cases_of_different_shapes_share_a_sheet(tmp_path):
    rows = [row(shape=(3, 20, 24)), row(shape=(5, 32, 18))]
    contact_sheet(rows, {1: "RV", 2: "MYO", 3: "LV"}, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()


def test_truth_and_prediction_are_painted_in_the_colours_of_the_labels(tmp_path):
    case = row()
    sheets = []
    for prediction in (case.prediction, np.zeros_like(case.prediction)):
        path = tmp_path / "sheet.png"
        contact_sheet(
            [SheetRow("c", case.image, case.truth, prediction, case.entropy, case.entropy)], {3: "LV"}, path
        )
        sheets.append(imread(path))
    changed = np.nonzero((sheets[0] != sheets[1]).any(axis=(0, 2)))[0] / sheets[0].shape[1]
    # Only the third of five columns differs, that of the prediction: 0.4 to 0.6 of the width, moved to the right
    # a little by the names of the cases.
    assert changed.min() > 0.4
    assert changed.max() < 0.65


def test_a_sheet_without_any_uncertainty_is_drawn(tmp_path):
    contact_sheet([row(peak=0.0)], {1: "RV", 2: "MYO", 3: "LV"}, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()


def test_no_cases_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one case"):
        contact_sheet([], {1: "RV"}, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


def test_the_slice_with_the_most_entropy_is_shown():
    entropy = np.zeros((5, 2, 2))
    entropy[1] = 0.3  # sum 1.2
    entropy[3, 0, 0] = 1.0  # the highest voxel, but sum 1.0
    assert most_uncertain_slice(entropy) == 1


def test_the_middle_slice_is_shown_where_nothing_is_uncertain():
    assert most_uncertain_slice(np.zeros((7, 2, 2))) == 3


def test_background_is_transparent_and_neighbouring_labels_differ():
    colours = label_colours({1: "RV", 2: "MYO", 3: "LV"})
    assert colours.N == 4
    assert colours(0)[3] == 0.0
    assert len({to_hex(colours(label)) for label in (1, 2, 3)}) == 3


def test_a_label_keeps_its_colour_whichever_others_there_are():
    assert label_colours({2: "MYO"})(2) == label_colours({1: "RV", 2: "MYO", 3: "LV"})(2)


def test_more_labels_than_colours_begin_again():
    colours = label_colours({label: str(label) for label in range(1, 10)})
    assert colours(8) == colours(1)  # seven colours


def test_importing_the_sheet_leaves_pyplot_and_its_backend_alone():
    code = "import sys, nnunet_ext.report.contact_sheet; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
