"""Coordinates worked out by hand; whether a plot is clear is for eyes to judge."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from markupsafe import Markup

from nnunet_ext.evaluation.reliability import ReliabilityBins
from nnunet_ext.report.plots import dice_interval
from nnunet_ext.report.plots.frame import Frame, Scale, scale_around, tick_text
from nnunet_ext.report.plots.histogram import comparison_histogram, stairs
from nnunet_ext.report.plots.reliability import reliability_diagram
from nnunet_ext.report.plots.risk_coverage import risk_coverage_plot
from nnunet_ext.report.plots.scatter import scatter_plot
from nnunet_ext.report.plots.svg import element, line_path
from nnunet_ext.report.plots.training_curve import thinned, training_plot
from nnunet_ext.report.plots.weight_plane import equal_frame, weight_plane
from nnunet_ext.report.training import FoldTraining
from nnunet_ext.report.weight_map import WeightMap

# 46 and 14 pixels beside the rectangle, 10 above and 38 below: it spans 46 to 146 and 10 to 110.
FRAME = Frame(Scale(0, 10), Scale(-1, 1), width=160, height=148)


def parse(plot: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(str(plot))


def test_values_are_where_they_belong():
    assert FRAME.at(0, -1) == (46, 110)
    assert FRAME.at(10, 1) == (146, 10)
    assert FRAME.at(2.5, 0) == (71, 60)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 20, [0, 5, 10, 15, 20]),
        (-0.93, 0.24, [-0.5, 0]),
        (0.48, 1.02, [0.6, 0.8, 1.0]),
    ],
)
def test_ticks_are_round_numbers_within_the_scale(low, high, ticks):
    assert Scale(low, high).ticks() == pytest.approx(ticks)


def test_ticks_are_written_without_noise():
    assert tick_text(0.1 + 0.2) == "0.3"
    assert tick_text(-0.5) == "−0.5"


def test_a_scale_holds_its_values_with_a_margin():
    assert scale_around([0.0, 10.0, float("nan")], margin=0.1) == Scale(-1.0, 11.0)
    assert scale_around([]) == Scale(0.0, 1.0)
    assert scale_around([0.0, 0.0]).low < 0 < scale_around([0.0, 0.0]).high


def test_a_path_is_broken_where_there_is_no_value():
    points = [(0, 1), (2, 3.004), (float("nan"), 1), (4, 5), (6, float("inf"))]
    assert line_path(points) == "M0 1L2 3M4 5"


def test_texts_are_escaped_and_elements_are_not():
    assert element("text", "<b>", x=1.0, class_="tick") == '<text x="1" class="tick">&lt;b&gt;</text>'
    assert element("g", element("path", d="M0 0")) == '<g><path d="M0 0"></path></g>'
    assert element("g", title='"><script>') == '<g title="&#34;&gt;&lt;script&gt;"></g>'


def test_the_reliability_diagram_has_a_dot_for_each_bin_with_voxels():
    bins = ReliabilityBins(np.array([0, 4, 9, 0]), np.array([0, 1.6, 5.4, 0]), np.array([0, 1, 6, 0]))
    dots = parse(reliability_diagram(bins)).findall("circle")
    # the frame is 380 by 300: the first dot at confidence 0.4 and accuracy 0.25
    assert float(dots[0].get("cx", "")) == pytest.approx(46 + 0.4 * 320)
    assert float(dots[0].get("cy", "")) == pytest.approx(262 - 0.25 * 252)
    assert len(dots) == 2


def test_the_operating_point_is_at_the_share_and_risk_of_the_accepted_cases():
    dice, confidence = np.array([0.9, 0.8, 0.5, 0.2]), np.array([4.0, 3.0, 2.0, 1.0])
    plot = parse(risk_coverage_plot(dice, confidence, accepted=confidence > 2.5))
    ring = next(circle for circle in plot.findall("circle") if "ring" in circle.get("class", ""))
    assert float(ring.get("cx", "")) == pytest.approx(46 + 0.5 * 320)
    assert "accepts 50 % of them at a mean risk of 0.150" in plot.findtext("title", "")


def test_a_perfect_order_is_the_best_possible_one_also_of_equal_risks():
    plot = parse(risk_coverage_plot(np.array([0.0, 1.0, 0.0, 0.0]), np.array([1.0, 4.0, 3.0, 2.0])))
    best, own = (path.get("d") for path in plot.findall("path") if "line" in path.get("class", "").split())
    assert best == own


def test_an_operating_point_that_accepts_nobody_is_not_marked():
    plot = risk_coverage_plot(np.array([0.9, 0.8]), np.array([1.0, 2.0]), accepted=np.array([False, False]))
    assert "ring" not in plot


def test_verdicts_differ_in_shape():
    plot = parse(
        scatter_plot(
            ["a", "<b>", "c", "d"], [0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.5, 0.7], ["accept", "review", "reject", ""],
            value_name="entropy", failure_dice=0.75, threshold=0.25,
        )
    )  # fmt: skip
    shapes = [child.tag for child in plot if "point" in child.get("class", "")]
    assert shapes == ["circle", "polygon", "rect", "circle"]
    assert plot.findtext("polygon/title") == "<b>: Dice 0.800"


def test_a_histogram_is_outlined_from_the_axis_back_to_it():
    frame = Frame(Scale(0, 2), Scale(0, 1), width=160, height=148)
    points = stairs(frame, np.array([0.0, 1.0, 2.0]), np.array([0.5, 1.0]))
    assert points == [(46, 110), (46, 60), (96, 60), (96, 10), (146, 10), (146, 110)]


def test_a_histogram_counts_shares_of_each_group():
    plot = parse(comparison_histogram([0.0] * 30 + [1.0] * 10, [1.0], name="entropy", threshold=0.5))
    tall, small = (float(bar.get("height", "")) for bar in plot.findall("rect"))
    assert tall == pytest.approx(3 * small, rel=0.01)  # 30 and 10 of 40
    assert "median 1.000 in these 1 cases, 0.000 in the 40 cases" in plot.findtext("title", "")


def test_long_trainings_are_thinned_and_keep_their_last_epoch():
    assert thinned([5.0, 6.0, 7.0, 8.0], 2) == [(0, 5.0), (2, 7.0), (3, 8.0)]
    assert thinned([5.0], 2) == [(0, 5.0)]


def test_a_training_is_drawn_in_three_panels():
    plot = parse(training_plot("fold_0", FoldTraining((0.5, -0.5), (0.4, -0.4), (0.1, 0.8), (0.01, 0.0))))
    assert len(plot.findall("g")) == 3
    assert "last pseudo Dice 0.800" in plot.findtext("title", "")
    learning_rate = plot.findall("g")[2].findall("path")[-1].get("d", "")
    assert re.fullmatch(r"M[\d. ]+", learning_rate)  # a rate of 0 has no logarithm


def test_the_plane_of_weights_has_one_unit():
    weights = WeightMap(np.array([[0.0, 0.0], [8.0, 0.0], [4.0, 1.0]]), (0.9, 0.1), (0, 0, 1), (5, 6, 7), 3)
    frame = equal_frame(weights)
    (x0, y0), (x1, y1) = frame.at(0, 0), frame.at(1, 1)
    assert x1 - x0 == pytest.approx(y0 - y1)
    plot = parse(weight_plane("fold_0", weights))
    assert [circle.findtext("title") for circle in plot.findall("circle")][-1] == "cycle 1, epoch 7"


def test_the_dice_interval_spans_its_ends():
    plot = parse(dice_interval.dice_interval(0.5, 0.25, 0.75, float("nan")))
    bar = plot.find("rect")
    assert bar is not None
    assert float(bar.get("x", "")) == 8 + 0.25 * 224
    assert float(bar.get("width", "")) == 0.5 * 224
    assert plot.find("polygon") is None  # no true Dice
