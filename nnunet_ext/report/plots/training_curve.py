"""How a fold was trained: losses, pseudo Dice and learning rate over the epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from nnunet_ext.report.plots.frame import Frame, Scale, scale_around
from nnunet_ext.report.plots.svg import drawing, element, joined, line_path
from nnunet_ext.report.training import FoldTraining

WIDTH = 380.0
MOST_POINTS = 400  # of a line; more cannot be seen


def training_plot(fold: str, training: FoldTraining) -> Markup:
    """Three panels one below the other, over the same epochs."""
    epochs = len(training.training_loss)
    x = Scale(0, max(epochs, 1))
    losses = scale_around([*training.training_loss, *training.validation_loss])
    rates = [math.log10(rate) if rate > 0 else math.nan for rate in training.learning_rate]
    panels = [
        _panel(
            x, losses, "loss", 130, [(training.training_loss, "series-1"), (training.validation_loss, "series-2")]
        ),
        _panel(x, Scale(0, 1), "pseudo Dice", 100, [(training.pseudo_dice, "series-3")]),
        _panel(x, scale_around(rates), "log₁₀ rate", 110, [(rates, "series-1")], x_name="epoch"),
    ]
    offsets = (0, 130, 230)
    parts = [
        element("g", panel, transform=f"translate(0 {offset})") for panel, offset in zip(panels, offsets, strict=True)
    ]
    label = (
        f"Training of {fold} over {epochs} epochs: the last validation loss is {training.validation_loss[-1]:.3f}, "
        f"the last pseudo Dice {training.pseudo_dice[-1]:.3f}."
    )
    return drawing(WIDTH, 340, label, parts)


def thinned(values: Sequence[float], most: int) -> list[tuple[int, float]]:
    """Epoch and value, at even steps, the last one always there."""
    step = max(math.ceil(len(values) / most), 1)
    kept = [(index, values[index]) for index in range(0, len(values), step)]
    last = len(values) - 1
    return kept if not kept or kept[-1][0] == last else [*kept, (last, values[last])]


def _panel(
    x: Scale, y: Scale, name: str, height: float, series: list[tuple[Sequence[float], str]], *, x_name: str = ""
) -> Markup:
    frame = Frame(x, y, width=WIDTH, height=height, bottom=38.0 if x_name else 12.0)
    parts = frame.axes(x_name, name, y_ticks=4)
    for values, css in series:
        points = [frame.at(epoch + 1, value) for epoch, value in thinned(values, MOST_POINTS)]
        parts.append(element("path", d=line_path(points), class_=f"line thin {css}"))
    return joined(parts)
