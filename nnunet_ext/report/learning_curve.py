"""The curve of a replayed selection: Dice over the number of labelled cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nnunet_ext.files.atomic import atomic_path
from nnunet_ext.report.contact_sheet import LABEL_COLOURS
from nnunet_ext.selection.replay import Step, dice_of


def draw_learning_curve(steps: Sequence[Step], file: Path) -> None:
    """Draws a line of means per strategy, and a dot per seed, and writes a PNG.

    Args:
        steps: at least one.
        file: the PNG file.

    Raises:
        ValueError: if there are no steps.
    """
    if not steps:
        raise ValueError("A curve shows at least one training; found none.")
    figure = Figure(figsize=(6.4, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for index, strategy in enumerate(dict.fromkeys(step.strategy for step in steps)):
        own = [step for step in steps if step.strategy == strategy]
        colour = LABEL_COLOURS[index % len(LABEL_COLOURS)]
        rounds = sorted({step.round for step in own})
        cases = [fmean(step.cases for step in own if step.round == number) for number in rounds]
        means = [fmean(dice_of(own, strategy, number)) for number in rounds]
        axes.plot(cases, means, color=colour, label=strategy, linewidth=2)
        axes.scatter([step.cases for step in own], [step.mean_dice for step in own], color=colour, s=18, alpha=0.7)
    axes.set_xlabel("labelled cases")
    axes.set_ylabel("mean Dice of the validation cases")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format="png")
