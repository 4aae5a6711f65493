"""Curves of our own below nnU-Net's in progress.png."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from nnunet_ext.files.atomic import atomic_path

HEIGHT_BY_WIDTH = 0.4


def append_curves(progress: Path, curves: Mapping[str, Sequence[float]]) -> None:
    """Adds a panel with one curve per name to a plot that nnU-Net has just drawn; does nothing if it drew none.

    nnU-Net redraws the whole plot after every epoch, so that there is one such panel at most.

    Args:
        progress: nnU-Net's plot.
        curves: name to one value per epoch; NaN where there is none.
    """
    if not progress.is_file():
        return
    with Image.open(progress) as image:
        stock = image.convert("RGB")
    panel = curve_panel(curves, stock.width)
    both = Image.new("RGB", (stock.width, stock.height + panel.height), "white")
    both.paste(stock, (0, 0))
    both.paste(panel, (0, stock.height))
    with atomic_path(progress) as temporary:
        both.save(temporary, format="PNG")


def curve_panel(curves: Mapping[str, Sequence[float]], width: int) -> Image.Image:
    """Curves over epochs as a picture of a width in pixels."""
    dpi = 100
    figure = Figure(figsize=(width / dpi, HEIGHT_BY_WIDTH * width / dpi), dpi=dpi, layout="constrained")
    axes = figure.subplots()
    size = 0.8 * width / dpi  # points, as large as nnU-Net's
    for name, values in curves.items():
        axes.plot(range(len(values)), values, label=name, linewidth=4, marker="o" if len(values) == 1 else None)
    axes.set_xlabel("epoch", fontsize=size)
    axes.set_ylabel("loss term", fontsize=size)
    axes.tick_params(labelsize=size)
    axes.legend(fontsize=size)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    drawn.seek(0)
    return Image.open(drawn).convert("RGB").resize((width, round(HEIGHT_BY_WIDTH * width)))
