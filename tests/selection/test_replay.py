"""What a replay says about strategies, from a few numbers."""

from __future__ import annotations

import pytest

from nnunet_ext.selection.replay import Step, mean_by_seed, replay_lines

DICE = {  # seed and strategy to the mean Dice at the start and after two selections
    (0, "power"): (0.5, 0.7, 0.8),
    (0, "random"): (0.5, 0.6, 0.7),
    (1, "power"): (0.4, 0.5, 0.7),
    (1, "random"): (0.4, 0.6, 0.72),
}
STEPS = [
    Step(seed, strategy, number, 10 + 5 * number, number, dice)
    for (seed, strategy), values in DICE.items()
    for number, dice in enumerate(values)
]


def test_the_area_under_the_curve_leaves_out_the_common_start():
    assert mean_by_seed(STEPS, "power") == pytest.approx({0: 0.75, 1: 0.6})


def test_a_line_per_round_and_the_difference_to_random_seed_by_seed():
    lines = replay_lines(STEPS)
    assert [line.split() for line in lines[:2]] == [
        ["round", "cases", "power", "random"],
        ["0", "10", "0.450", "±", "0.071", "0.450", "±", "0.071"],
    ]
    assert lines[-1] == "power - random, mean over the rounds: +0.100 with seed 0, -0.060 with seed 1"


def test_an_unfinished_replay_has_no_difference_yet():
    assert replay_lines(STEPS[:3])[-1].split()[:2] == ["2", "20"]
    assert len(replay_lines([step for step in STEPS if step.round == 0])) == 2
