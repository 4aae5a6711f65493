"""A panel of our own below nnU-Net's progress plot."""

import numpy as np
from PIL import Image

from nnunet_ext.trainers.progress_plot import append_curves


def test_the_plot_stays_and_a_panel_comes_below(tmp_path):
    progress = tmp_path / "progress.png"
    Image.new("RGB", (300, 200), "red").save(progress)
    append_curves(progress, {"loss term Boundary": [float("nan"), 0.5, 0.25]})
    picture = np.asarray(Image.open(progress))
    assert picture.shape == (200 + 120, 300, 3)
    assert (picture[:200] == (255, 0, 0)).all()
    assert not (picture[200:] == 255).all()


def test_without_a_plot_nothing_is_drawn(tmp_path):
    append_curves(tmp_path / "progress.png", {"loss term Boundary": [0.5]})
    assert not any(tmp_path.iterdir())
