"""One picture of several cases: image, truth, prediction and where the ensemble is uncertain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

# Okabe and Ito's palette, which people with any colour vision can tell apart; background is transparent.
LABEL_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00")
COLUMNS = ("image", "truth", "prediction", "entropy / ln C", "mutual information / ln C")
OVERLAY_OPACITY = 0.65


@dataclass(frozen=True)
class SheetRow:
    """One case of the sheet; volumes are (z, y, x).

    Attributes:
        title: name of the case and what to say about it.
        image: any intensities.
        truth: label map.
        prediction: label map.
        entropy: in [0, 1].
        mutual_information: in [0, 1].
        aspect: spacing along y divided by that along x.
    """

    title: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    entropy: np.ndarray
    mutual_information: np.ndarray
    aspect: float = 1.0


def contact_sheet(rows: Sequence[SheetRow], label_names: Mapping[int, str], path: Path) -> None:
    """Draws one row per case, at the slice with the most entropy, and writes a PNG.

    Args:
        rows: at least one case.
        label_names: label to name, without background.
        path: the PNG file.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("A contact sheet shows at least one case; found none.")
    figure = Figure(figsize=(3.1 * len(COLUMNS), 2.9 * len(rows) + 0.9), dpi=110, layout="constrained")
    heights = [1.0] * len(rows) + [0.05]  # the last line holds the legend and the colour bars
    axes = figure.subplots(len(rows) + 1, len(COLUMNS), squeeze=False, height_ratios=heights)
    colours = label_colours(label_names)
    scales = [max(float(row.entropy.max()) for row in rows), max(float(row.mutual_information.max()) for row in rows)]
    for line, row in zip(axes[:-1], rows, strict=True):
        draw_row(line, row, colours, scales)
    for axis, name in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(name, fontsize=13, pad=10)
    for axis, mapped in zip(axes[-1, -2:], axes[0, -2:], strict=True):
        figure.colorbar(mapped.images[-1], cax=axis, orientation="horizontal")
    for axis in axes[-1, :-2]:
        axis.set_axis_off()
    legend = axes[-1, 0].legend(
        handles=[Patch(color=colours(label), label=name) for label, name in label_names.items()],
        loc="center left",
        ncols=len(label_names),
        frameon=False,
        fontsize=12,
    )
    legend.set_in_layout(False)  # it is wider than its column, which must not widen for it
    figure.savefig(path)


def draw_row(axes: Sequence[Axes], row: SheetRow, colours: ListedColormap, scales: Sequence[float]) -> None:
    """Draws one case into its five axes."""
    z = most_uncertain_slice(row.entropy)
    low, high = np.percentile(row.image[z], (0.5, 99.5))
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    for axis in axes[:3]:
        axis.imshow(row.image[z], cmap="gray", vmin=low, vmax=high, aspect=row.aspect, interpolation="nearest")
    for axis, labels in ((axes[1], row.truth), (axes[2], row.prediction)):
        axis.imshow(
            labels[z], cmap=colours, vmin=0, vmax=colours.N - 1, aspect=row.aspect, interpolation="nearest",
            alpha=OVERLAY_OPACITY,
        )  # fmt: skip
    for axis, values, scale in zip(axes[3:], (row.entropy, row.mutual_information), scales, strict=True):
        axis.imshow(
            values[z], cmap="magma", vmin=0, vmax=max(scale, 1e-6), aspect=row.aspect, interpolation="nearest"
        )
    axes[0].set_ylabel(f"{row.title}\nslice {z + 1} of {len(row.entropy)}", fontsize=11, labelpad=8)


def most_uncertain_slice(entropy: np.ndarray) -> int:
    """Index of the slice with the largest sum; the middle one where there is no uncertainty at all."""
    sums = entropy.sum(axis=tuple(range(1, entropy.ndim)))
    return int(sums.argmax()) if sums.any() else len(sums) // 2


def label_colours(label_names: Mapping[int, str]) -> ListedColormap:
    """Colour of every label from 0 on: transparent for the background, then the palette in turn."""
    largest = max(label_names, default=0)
    palette = [to_rgba(LABEL_COLOURS[label % len(LABEL_COLOURS)]) for label in range(largest)]
    return ListedColormap([(0.0, 0.0, 0.0, 0.0), *palette])
