"""The risk-coverage curve: what is risked if only the most confident cases are accepted."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from nnunet_ext.evaluation.failure_detection import best_confidence, risk_coverage_curve
from nnunet_ext.report.numbers import percent
from nnunet_ext.report.plots.frame import Frame, Scale
from nnunet_ext.report.plots.svg import drawing, element, line_path


def risk_coverage_plot(dice: np.ndarray, confidence: np.ndarray, *, accepted: np.ndarray | None = None) -> Markup:
    """Mean 1 - Dice of the accepted cases over their share; beside it that of the best possible order.

    Args:
        dice: (N), finite.
        confidence: (N), finite; larger is more confident.
        accepted: (N), boolean, at the operating point; it is marked if a case is accepted.
    """
    risk = 1 - dice
    coverages, risks = risk_coverage_curve(risk, confidence)
    best_coverages, best_risks = risk_coverage_curve(risk, best_confidence(risk))
    top = max(float(risks.max()), float(best_risks.max()), 0.01)
    frame = Frame(Scale(0, 1), Scale(0, top * 1.15), height=300)
    mean = float(risk.mean())
    parts = frame.axes("share of cases accepted", "mean 1 − Dice of these")
    parts += [
        element("path", d=line_path([frame.at(0, mean), frame.at(1, mean)]), class_="reference"),
        element("path", d=_path(frame, best_coverages, best_risks), class_="line series-2 dashed"),
        element("path", d=_path(frame, coverages, risks), class_="line series-1"),
    ]
    parts += [
        element("circle", cx=x, cy=y, r=2.5, class_="dot series-1")
        for x, y in (frame.at(*point) for point in zip(coverages, risks, strict=True))
    ]
    label = f"Risk-coverage curve of {len(dice)} cases; their mean risk is {mean:.3f}."
    if accepted is not None and accepted.any():
        share, at_point = float(accepted.mean()), float(risk[accepted].mean())
        x, y = frame.at(share, at_point)
        parts += [
            element("line", x1=x, y1=frame.at(share, 0)[1], x2=x, y2=y, class_="mark"),
            element("circle", cx=x, cy=y, r=5.5, class_="ring mark"),
        ]
        label += f" The operating point accepts {percent(share)} of them at a mean risk of {at_point:.3f}."
    return drawing(frame.width, frame.height, label, parts)


def _path(frame: Frame, coverages: np.ndarray, risks: np.ndarray) -> str:
    points = [frame.at(x, y) for x, y in zip(np.r_[0, coverages], np.r_[risks[0], risks], strict=True)]
    return line_path(points)
