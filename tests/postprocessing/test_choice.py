"""The choice on a cross-validation that is made up: one step helps, another one harms, a third does nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn import label_map

from nnunet_ext.labels import LabelScheme
from nnunet_ext.postprocessing.chain import PostProcessing
from nnunet_ext.postprocessing.choice import Choice, families_of
from nnunet_ext.postprocessing.cross_validated import CrossValidatedCase, cropped_case
from nnunet_ext.postprocessing.fill_holes import FillHoles
from nnunet_ext.postprocessing.largest_component import LargestComponent
from nnunet_ext.postprocessing.minimum_size import MinimumSize
from nnunet_ext.postprocessing.step import SegmentedCase
from nnunet_ext.postprocessing.structures import anatomy_of
from nnunet_ext.postprocessing.text import choice_lines

SCHEME = LabelScheme({"organ": (1,), "lesion": (2,)})
ANATOMY = anatomy_of({"labels": {"background": 0, "organ": 1, "lesion": 2}})
MM = (1.0, 1.0, 1.0)
# The organ has a speck of 2 mm³ that is not there, the lesions are two true ones of 1 and 2 mm³.
PREDICTION = label_map("11111..11", ".........", "22.....2.")
TRUTH = label_map("11111....", ".........", "22.....2.")


def cross_validation(
    prediction: np.ndarray = PREDICTION, truth: np.ndarray = TRUTH, *, cases: int = 6, folds: int = 3
) -> Choice:
    """The same case, as often as there are patients."""
    segmented = SegmentedCase(prediction, MM)
    return Choice(
        [
            CrossValidatedCase(f"case {number}", f"patient {number}", str(number % folds), segmented, truth)
            for number in range(cases)
        ],
        SCHEME,
    )


def numbers(choice: Choice) -> list[int]:
    return list(range(len(choice.cases)))


def trial_of(choice: Choice, family):
    return choice.trial(family, (), numbers(choice))


# --- Dice ---


def test_the_dice_is_the_mean_over_structures():
    """Organ: 5 true of 5 and 7, 10/12; lesion: 1."""
    assert cross_validation().dice(0, ()) == pytest.approx((10 / 12 + 1) / 2)


def test_what_truth_and_prediction_leave_out_counts_as_1():
    """So that removing a lesion where there is none gains 1/2, not nothing."""
    choice = cross_validation(label_map("11.2"), label_map("11.."))
    removal = MinimumSize("lesion", (2,), 0, 3.0, keep_largest=False)
    assert choice.gain(0, (), removal) == pytest.approx(0.5)


def test_ignored_voxels_do_not_count():
    choice = cross_validation(label_map("11.11"), label_map("11.33"))
    assert choice.dice(0, ()) < 1
    ignoring = Choice(choice.cases, replace(SCHEME, ignore_label=3))
    assert ignoring.dice(0, ()) == 1


# --- one candidate ---


def test_a_step_that_helps_is_kept():
    """The organ's Dice rises from 10/12 to 1, the mean by 1/12."""
    trial = trial_of(cross_validation(), [LargestComponent("organ", (1,))])
    assert trial.kept
    assert trial.gain.mean_difference == pytest.approx(1 / 12)
    assert (trial.gain.low, trial.changed) == (pytest.approx(1 / 12), 6)


def test_a_step_that_harms_is_dropped():
    """It would take the smaller lesion, one of three voxels: Dice 4/5. Fitted elsewhere, it is not even applied."""
    trial = trial_of(cross_validation(), [LargestComponent("lesion", (2,))])
    assert not trial.kept
    assert (trial.gain.mean_difference, trial.changed) == (0, 0)


def test_a_step_that_changes_nothing_is_dropped():
    assert not trial_of(cross_validation(), [FillHoles("organ", (1,), 1)]).kept


def test_a_step_that_helps_two_patients_of_six_is_dropped():
    """Drawing six patients with replacement leaves out both in 9 % of the draws, so the interval begins at 0."""
    choice = cross_validation(TRUTH)
    for number in (0, 1):  # in two folds, so that each is seen in the fit for the other
        choice.cases[number] = replace(choice.cases[number], segmented=SegmentedCase(PREDICTION, MM))
    trial = trial_of(choice, [LargestComponent("organ", (1,))])
    assert trial.gain.mean_difference == pytest.approx(2 / 6 / 12)
    assert (trial.gain.low, trial.kept) == (0, False)


def test_the_gain_of_a_step_is_after_those_before_it():
    """With the speck removed by its size, the largest component gains nothing any more."""
    choice = cross_validation()
    first = MinimumSize("organ", (1,), 0, 3.0)
    assert not choice.trial([LargestComponent("organ", (1,))], (first,), numbers(choice)).kept


def test_the_mildest_of_equally_good_parameters_is_taken():
    """Every volume from 3 mm³ removes the speck; the largest component stays in any case."""
    family = families_of(ANATOMY, ["minimum_size"], probabilities=False)[0]
    assert trial_of(cross_validation(), family).step == MinimumSize("organ", (1,), 0, 3.0, keep_largest=True)


def test_parameters_are_judged_on_cases_that_did_not_choose_them():
    """In fold 0 lesions of 1 mm³ are false, in fold 1 they are true: what one fold teaches harms the other.

    Fold 0 would remove them, which costs fold 1; fold 1 would not, so fold 0 gains nothing.
    """
    false = cross_validation(label_map("111.2"), label_map("111.."), cases=4, folds=1).cases
    true = cross_validation(label_map("111.2"), label_map("111.2"), cases=4, folds=1).cases
    true = [replace(case, case=f"{case.case} of 1", patient=f"{case.patient} of 1", fold="1") for case in true]
    choice = Choice([*false, *true], SCHEME)
    trial = trial_of(choice, [MinimumSize("lesion", (2,), 0, 3.0, keep_largest=False)])
    assert trial.gain.mean_difference == pytest.approx((4 * 0 - 4 * 0.5) / 8)
    assert not trial.kept


# --- all candidates ---


def test_the_greedy_choice_keeps_what_helps_and_drops_what_does_not():
    choice = cross_validation()
    families = families_of(ANATOMY, None, probabilities=False)
    steps, trials = choice.steps(families, numbers(choice))
    assert steps == (MinimumSize("organ", (1,), 0, 3.0, keep_largest=True),)
    assert len(trials) == len(families) == 7  # two sizes, three largest components, two holes; nothing to relabel
    assert [trial.kept for trial in trials] == [True, *[False] * 6]


def test_the_gain_of_the_choice_is_that_of_steps_chosen_without_the_case():
    choice = cross_validation()
    together = choice.nested_gain(families_of(ANATOMY, None, probabilities=False), numbers(choice))
    assert together.mean_difference == pytest.approx(1 / 12)


def test_without_probabilities_only_label_maps_are_changed():
    with_them, without = (families_of(ANATOMY, None, probabilities=known) for known in (True, False))
    assert len(with_them) == len(without) + 2  # hysteresis of two structures


def test_cases_of_a_patient_are_never_on_both_sides():
    """Also where the two frames of a patient are in two folds."""
    choice = cross_validation(cases=4, folds=2)
    choice.cases[1] = replace(choice.cases[1], patient="patient 0")  # fold 1, its other frame is in fold 0
    parts = list(choice.parts(range(4)))
    assert parts == [([3], [0, 2]), ([2], [1, 3])]


def test_a_single_fold_is_divided_by_patients():
    parts = list(cross_validation(cases=6, folds=1).parts(range(6)))
    assert [measuring for _, measuring in parts] == [[0, 5], [1], [2], [3], [4]]


# --- cropped cases ---


def test_a_case_is_cropped_to_what_may_change_with_a_margin(tmp_path):
    """Voxel 3 may become foreground with 0.3; the margin of 1 keeps the axes that the image has."""
    labels, truth = np.zeros((2, 9, 9), np.uint8), np.zeros((2, 9, 9), np.uint8)
    labels[0, 5, 5], truth[0, 5, 4] = 1, 1
    probabilities = np.zeros((3, 2, 9, 9), np.float32)
    probabilities[2, 0, 3, 5] = 0.3
    names = {"case": "a", "patient": "a", "fold": "0"}
    found = cropped_case(SegmentedCase(labels, MM, probabilities), truth, SCHEME, tmp_path, names=names)
    assert found.truth.shape == found.segmented.labels.shape == (2, 5, 4)
    assert found.segmented.required_probabilities().shape == (3, 2, 5, 4)
    assert found.segmented.required_probabilities()[2, 0, 1, 2] == pytest.approx(0.3)


# --- text ---


def test_the_report_lists_every_candidate(tmp_path):
    choice = cross_validation()
    steps, trials = choice.steps(families_of(ANATOMY, None, probabilities=False), numbers(choice))
    chosen = PostProcessing(
        steps,
        fitted_on={"folds": ["0", "1"], "cases": 6, "patients": 6, "probabilities": False},
        report={"dice": 0.9, "candidates": [trial.as_json() for trial in trials], "together": None},
    )
    chosen.save(tmp_path / "file.json")
    lines = choice_lines(PostProcessing.load(tmp_path / "file.json"))
    assert sum(line.endswith("kept") for line in lines) == 1
    assert any("minimum_size" in line and "volume_mm3 3" in line and "+0.08333 to +0.08333" in line for line in lines)
    assert any("fewer than 20 patients" in line for line in lines)
