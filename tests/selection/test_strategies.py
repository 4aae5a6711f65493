"""What each strategy chooses from a few units."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nnunet_ext.selection.foreground_random import foreground_random
from nnunet_ext.selection.k_centre import k_centre
from nnunet_ext.selection.picking import pick, places
from nnunet_ext.selection.power import power
from nnunet_ext.selection.top import top
from nnunet_ext.selection.units import Choice, Unit

RANDOM = np.random.default_rng


def whole_case(name: str, score: float, **label_scores: float) -> Unit:
    """A case of one voxel; labels as `l1=0.3`."""
    return Unit(name, ((0, 1),), score, {int(label[1:]): value for label, value in label_scores.items()})


def part(case: str, start: int, stop: int, score: float) -> Unit:
    return Unit(case, ((start, stop),), score)


def names(choices: list[Choice]) -> list[str]:
    return [choice.unit.case for choice in choices]


CASES = [whole_case("a", 0.2), whole_case("b", 0.9), whole_case("c", 0.5), whole_case("d", 0.9)]


# --- places ---


def test_a_share_of_the_places_is_divided_evenly_over_labels():
    """0.66 of 10 are 6: two for each of three labels, four for any unit."""
    assert Counter(places(10, [1, 2, 4], 0.66, RANDOM(0))) == {1: 2, 2: 2, 4: 2, None: 4}


def test_who_gets_one_more_is_drawn():
    """Three places, two labels: one has two of them, now this one, now that one."""
    found = [Counter(places(3, [1, 2], 1.0, RANDOM(seed))) for seed in range(20)]
    assert all(sorted(counts.values()) == [1, 2] for counts in found)
    assert {counts[1] for counts in found} == {1, 2}


def test_without_labels_all_places_are_for_any_unit():
    assert places(3, [], 0.66, RANDOM(0)) == [None, None, None]


# --- picking ---


def test_what_overlaps_with_a_chosen_unit_is_not_chosen():
    units = [part("a", 0, 4, 0.9), part("a", 2, 6, 0.8), part("a", 4, 8, 0.7), part("b", 2, 6, 0.1)]
    assert [choice.unit for choice in top(units, 4)] == [units[0], units[2], units[3]]


def test_units_of_one_case_can_be_limited():
    units = [part("a", 0, 1, 0.9), part("a", 1, 2, 0.8), part("a", 2, 3, 0.7), part("b", 0, 1, 0.1)]
    assert names(top(units, 3, most_per_case=2)) == ["a", "a", "b"]


def test_a_place_whose_label_is_used_up_is_filled_from_all():
    units = [whole_case("a", 0.9, l1=0.9), whole_case("b", 0.5)]
    has_label = np.array([1.0, -np.inf])
    found = pick(units, [1, 1], lambda label: has_label if label else np.array([0.9, 0.5]))
    assert [(choice.unit.case, choice.label) for choice in found] == [("a", 1), ("b", None)]


# --- top ---


def test_top_takes_the_highest_scores_and_of_equals_the_first():
    assert names(top(CASES, 3)) == ["b", "d", "c"]


def test_all_are_chosen_where_there_are_fewer():
    assert names(top(CASES, 9)) == ["b", "d", "c", "a"]


# --- power ---


def test_without_noise_power_is_top():
    found = power(CASES, 2, beta=1e6, stratified=0, generator=RANDOM(0))
    assert set(names(found)) == {"b", "d"}


@pytest.mark.parametrize(("beta", "share"), [(1.0, 0.75), (2.0, 0.9)])
def test_a_unit_is_drawn_in_proportion_to_a_power_of_its_score(beta, share):
    """Scores 0.3 and 0.1: 3^beta to 1."""
    units = [whole_case("a", 0.3), whole_case("b", 0.1)]
    generator = RANDOM(0)
    first = [names(power(units, 1, beta=beta, stratified=0, generator=generator)) for _ in range(4000)]
    assert first.count(["a"]) / 4000 == pytest.approx(share, abs=0.02)


def test_a_stratified_place_goes_to_what_is_uncertain_in_its_label():
    units = [whole_case("a", 0.9, l1=0.8, l2=0.1), whole_case("b", 0.5, l1=0.1, l2=0.4), whole_case("c", 0.99)]
    found = power(units, 2, beta=1e6, stratified=1.0, generator=RANDOM(0))
    assert {choice.label: choice.unit.case for choice in found} == {1: "a", 2: "b"}


def test_units_without_any_uncertainty_can_be_drawn():
    units = [whole_case(name, 0.0) for name in "abc"]
    first = {names(power(units, 1, beta=1, stratified=0, generator=RANDOM(seed)))[0] for seed in range(40)}
    assert first == {"a", "b", "c"}


# --- random ---


def test_random_does_not_look_at_scores():
    first = Counter(
        names(foreground_random(CASES, 1, stratified=0, generator=RANDOM(seed)))[0] for seed in range(2000)
    )
    assert all(first[name] / 2000 == pytest.approx(0.25, abs=0.04) for name in "abcd")


def test_random_gives_each_label_its_share():
    units = [*CASES, whole_case("rare", 0.0, l2=0.0), *(whole_case(f"l{i}", 0.0, l1=0.0) for i in range(9))]
    for seed in range(5):
        found = foreground_random(units, 4, stratified=0.5, generator=RANDOM(seed))
        assert Counter(choice.label for choice in found) == {1: 1, 2: 1, None: 2}
        assert "rare" in names(found)


@pytest.mark.parametrize("strategy", [foreground_random, lambda *a, **k: power(*a, beta=1, **k)])
def test_a_seed_gives_the_same_choice_again(strategy):
    one, other = (strategy(CASES, 3, stratified=0.5, generator=RANDOM(7)) for _ in range(2))
    assert one == other


# --- k-centre ---

FEATURES = np.array([[0.0], [1.0], [10.0], [6.0]])
CANDIDATES = top([whole_case(name, 1 - 0.1 * i) for i, name in enumerate("abcd")], 4)


def test_k_centre_begins_with_the_most_uncertain_and_goes_to_the_farthest():
    """From 0 to 10; then 6 is 4 away from the nearer of both, 1 only 1."""
    assert names(k_centre(CANDIDATES, FEATURES, 3)) == ["a", "c", "d"]


def test_k_centre_keeps_away_from_what_has_labels():
    """9 is labelled: 0 is 9 away; then 6 is 3 away from 9, 1 and 10 only 1."""
    assert names(k_centre(CANDIDATES, FEATURES, 2, np.array([[9.0]]))) == ["a", "d"]


def test_k_centre_takes_each_of_several_equals_once():
    assert sorted(names(k_centre(CANDIDATES, np.zeros((4, 2)), 9))) == ["a", "b", "c", "d"]
