"""Simulated cross-validations: what they were made with is found again, and parts that are left out stay out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from nnunet_ext.calibration.calibration_case import CalibrationCase
from nnunet_ext.calibration.doubts import doubts
from nnunet_ext.calibration.fit import (
    chosen_column,
    confidence_figures,
    fit_calibration,
    held_out_parts,
    held_out_quality,
    mask_of,
    share_where,
)
from nnunet_ext.calibration.fit_checks import require_confidence, require_members_for, require_patients
from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.calibration.risk_control import MissCounts
from nnunet_ext.options import FitOptions

VOXELS = 500
TEMPERATURE = 2.0  # the simulated network's probabilities are p^2, normalised: over-confident


def test_a_single_patient_is_refused():
    assert require_patients("Calibration", ["a", "b", "a"]) == 2
    with pytest.raises(ValueError, match=r"Calibration needs .* found 2 cases of 1"):
        require_patients("Calibration", ["a", "a"])


def test_only_what_compares_members_needs_two():
    require_members_for("mean_entropy", 1)
    require_members_for("mutual_information", 2)
    with pytest.raises(ValueError, match="mutual_information compares members; found 1"):
        require_members_for("mutual_information", 1)


def simulated(
    number: int,
    *,
    patient: str | None = None,
    fold: str = "0",
    dice: float = 0.85,
    flags: Sequence[str] = (),
    regions: bool = False,
    voxels: int = VOXELS,
    **row: float,
) -> CalibrationCase:
    """Labels drawn from known probabilities; what the network says is sharper than they are by the temperature."""
    rng = np.random.default_rng(number)
    if regions:
        logits = rng.normal(0, 1.5, (2, voxels))
        truth = rng.random((2, voxels)) < 1 / (1 + np.exp(-logits))
        said = 1 / (1 + np.exp(-logits * TEMPERATURE))
    else:
        true = rng.dirichlet([1, 1, 1], voxels).T  # (3, N)
        truth = (rng.random(voxels) > np.cumsum(true, axis=0)).sum(axis=0)
        said = true**TEMPERATURE / (true**TEMPERATURE).sum(axis=0)
    misses = MissCounts.of(np.full(100, 0.4), np.ones(100, bool)) if voxels else MissCounts.empty()
    return CalibrationCase(
        case=f"case_{number}",
        patient=patient or f"patient_{number}",
        fold=fold,
        row={"pairwise_dice": dice, "mean_entropy": 0.1 + number % 3 / 100, "flags": list(flags), **row},
        dice=dice,
        probabilities=said.astype(np.float32),
        truth=truth,
        misses=misses,
    )


def cohort(count: int = 12, *, regions: bool = False, folds: int = 3) -> list[CalibrationCase]:
    """Cases with Dice from 0.5 up; the pairwise Dice tells it exactly, and the entropy nothing."""
    return [
        simulated(number, fold=str(number % folds), dice=0.5 + 0.04 * number, regions=regions)
        for number in range(count)
    ]


def fitted(cases: Sequence[CalibrationCase], *, regions: bool = False, **options) -> Calibration:
    return fit_calibration(
        cases, FitOptions(**options), regions=regions, settings={"members": "final"}, fitted_on={"members": []}
    )


# --- temperature ---


@pytest.mark.parametrize(("kind", "equal"), [("global", True), ("per-class", False)])
def test_the_temperature_of_the_simulation_is_found(kind, equal):
    """6000 voxels give it to some hundredths."""
    calibration = fitted(cohort(), temperature=kind)
    assert calibration.temperature.values == pytest.approx([TEMPERATURE] * 3, rel=0.1)
    assert (len(set(calibration.temperature.values)) == 1) is equal
    assert set(calibration.fitted_on["temperatures"]) == {"global", "per-class"}


def test_a_temperature_that_is_given_is_applied_and_measured():
    calibration = fitted(cohort(), temperature=1.5)
    assert calibration.temperature.values == (1.5, 1.5, 1.5)
    assert calibration.temperature_kind == "fixed"
    assert list(calibration.figures["temperature"]) == ["none", "global", "per-class", "fixed"]


def test_a_temperature_of_1_leaves_probabilities_as_they_are():
    figures = fitted(cohort(), temperature=1.0).figures["temperature"]
    assert figures["fixed"] == pytest.approx(figures["none"])


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="must be above 0"):
        FitOptions(temperature=temperature)


def test_the_temperature_of_simulated_regions_is_found():
    calibration = fitted(cohort(regions=True), regions=True)
    assert calibration.temperature.regions
    assert calibration.temperature.values == pytest.approx([TEMPERATURE] * 2, rel=0.15)


@pytest.mark.parametrize("regions", [False, True])
def test_on_cases_left_out_calibrated_probabilities_are_better(regions):
    figures = fitted(cohort(regions=regions), regions=regions).figures["temperature"]
    assert list(figures) == ["none", "global", "per-class"]
    for kind in ("global", "per-class"):
        assert figures[kind]["ece"] < figures["none"]["ece"]
        assert figures[kind]["nll"] < figures["none"]["nll"]
        assert figures[kind]["cases"] == 12


def test_the_same_cases_give_the_same_calibration():
    np.testing.assert_equal(vars(fitted(cohort())), vars(fitted(cohort())))


def test_cases_with_an_empty_truth_have_no_part_in_the_temperature():
    cases = cohort(4)
    empty = simulated(9, dice=math.nan, voxels=0, flags=["empty_segmentation"], pairwise_dice=1.0)
    assert fitted([*cases, empty]).temperature == fitted(cases).temperature


def test_a_fold_beside_nothing_but_empty_cases_has_no_measured_temperature():
    """Without fold 0 there is no voxel to fit to: the figures are of the other direction only."""
    cases = [simulated(0, fold="0"), simulated(1, fold="1", voxels=0, dice=math.nan)]
    assert fitted(cases).figures["temperature"] == {}


# --- confidence ---


def test_auto_takes_the_column_with_the_smallest_aurc():
    """The pairwise Dice orders the cases as their Dice does. Turned round it is the worst, and entropy is better."""
    assert fitted(cohort()).confidence == "pairwise_dice"
    turned = [
        replace(case, row={**case.row, "pairwise_dice": 1 - case.dice, "mean_entropy": 0.3 - case.dice / 10})
        for case in cohort()
    ]
    assert fitted(turned).confidence == "mean_entropy"


def test_of_equal_columns_the_first_is_taken():
    cases = [replace(case, row={**case.row, "mean_entropy": -case.row["pairwise_dice"]}) for case in cohort()]
    assert chosen_column(cases, FitOptions()) == "pairwise_dice"


def test_a_column_can_be_chosen():
    calibration = fitted(cohort(), confidence="mean_entropy")
    assert calibration.confidence == "mean_entropy"
    # constant but for three values: -0.12, -0.11 and -0.1
    assert calibration.quality.confidence_knots[0] == pytest.approx(-0.12)


@pytest.mark.parametrize("column", ["mutual_information", "pairwise_dice"])
def test_a_column_that_not_every_case_has_cannot_be_chosen(column):
    """One case is of a single member, and no row has the other column."""
    cases = cohort()
    cases[3] = replace(cases[3], row={**cases[3].row, "pairwise_dice": math.nan})
    with pytest.raises(ValueError, match=rf"every case has, mean_entropy, or auto; found '{column}'\. pairwise_dice"):
        fitted(cases, confidence=column)
    assert fitted(cases).confidence == "mean_entropy"


def test_auto_never_takes_a_mutual_information_of_one_member():
    """A constant 0 has the mean risk as its AURC; an entropy that orders the cases the wrong way round has more."""
    cases = [
        replace(case, row={"members": 1, "mean_entropy": case.dice, "mutual_information": 0.0, "flags": []})
        for case in cohort()
    ]
    assert fitted(cases).confidence == "mean_entropy"
    assert list(fitted(cases).figures["confidences"]) == ["mean_entropy"]


def test_auto_never_takes_a_column_that_is_the_same_for_all_cases():
    """With a fold of one member each, mutual information is 0 here and above 0 in every case of several folds."""
    cases = [replace(case, row={**case.row, "members": 2, "mutual_information": 0.0}) for case in cohort()]
    turned = [replace(case, row={**case.row, "pairwise_dice": 1.0, "mean_entropy": case.dice}) for case in cases]
    figures = confidence_figures(turned, failure_dice=0.75)
    assert figures["mutual_information"]["aurc"] < figures["mean_entropy"]["aurc"]
    assert chosen_column(turned, FitOptions()) == "mean_entropy"


def test_auto_never_takes_a_column_that_is_the_same_for_most_cases():
    """The one case that differs is the worst by luck."""
    cases = [
        replace(case, row={**case.row, "pairwise_dice": float(number > 0), "mean_entropy": case.dice})
        for number, case in enumerate(cohort())
    ]
    assert chosen_column(cases, FitOptions()) == "mean_entropy"


def test_where_every_column_is_constant_auto_says_so():
    cases = [replace(case, row={"mean_entropy": 0.1, "flags": []}) for case in cohort()]
    with pytest.raises(ValueError, match=r"must differ between cases; each of mean_entropy is the same for most of"):
        chosen_column(cases, FitOptions())
    assert chosen_column(cases, FitOptions(confidence="mean_entropy")) == "mean_entropy"


@pytest.mark.parametrize("seed", range(20))
def test_entropies_that_know_nothing_do_not_lead_to_the_constant(seed):
    rng = np.random.default_rng(seed)
    cases = [
        replace(case, dice=float(rng.beta(8, 2)), row={"mean_entropy": rng.random(), "mutual_information": 0.0})
        for case in cohort(20)
    ]
    assert chosen_column(cases, FitOptions()) == "mean_entropy"


def test_a_confidence_that_no_ensemble_has_is_refused_by_name():
    """Predicted Dice stands in the table only after a calibration, so none can rest on it."""
    for column in ("auto", "pairwise_dice", "mutual_information"):
        require_confidence(column)
    for column in ("agreement", "predicted_dice"):
        with pytest.raises(ValueError, match=rf"one of pairwise_dice, .* or auto; found '{column}'"):
            require_confidence(column)


# --- quality, verdict and mask ---


def test_predicted_dice_and_threshold_of_cases_whose_confidence_tells_all():
    """The Dice are 0.5, 0.54, ... 0.94; seven of them, up to 0.74, are below 0.75."""
    calibration = fitted(cohort())
    assert calibration.quality.predicted_dice(0.7) == pytest.approx(0.7)
    assert calibration.threshold.failures == 7
    assert calibration.threshold.confidence_threshold == pytest.approx(0.74)
    assert fitted(cohort(), failure_dice=0.6).threshold.failures == 3
    assert fitted(cohort(), level=0.5).quality.level == 0.5
    assert fitted(cohort(), recall=0.5).threshold.confidence_threshold == pytest.approx(0.62)  # the fourth of seven


def test_flagged_cases_are_left_out_of_predicted_dice_and_threshold_only():
    """A case that is confident and empty would otherwise pull the map down; its row is recorded all the same."""
    cases = cohort()
    flagged = simulated(50, fold="1", dice=0.0, flags=["all_members_empty"], pairwise_dice=1.0)
    calibration, without = fitted([*cases, flagged]), fitted(cases)
    assert (calibration.quality, calibration.threshold) == (without.quality, without.threshold)
    assert calibration.temperature != without.temperature
    assert (calibration.fitted_on["cases"], calibration.fitted_on["flagged_cases"]) == (13, 1)
    assert calibration.cases[-1]["case"] == "case_50"
    assert calibration.figures["quality"]["cases"] == 12


def test_if_every_case_is_flagged_none_is_left_out():
    cases = [replace(case, row={**case.row, "flags": ["empty_segmentation"]}) for case in cohort()]
    assert fitted(cases).quality.cases == 12


def test_on_cases_left_out_a_confidence_that_tells_all_is_nearly_right():
    """The middle ones lie on the line between their neighbours. Eleven patients are too few for an interval.

    The first and the last are outside the range of the others: there is no estimate, and the last, which is one of
    five good cases, is not accepted. Of the others 0.78 is above the threshold of the six or seven failures, 0.74.
    """
    figures = fitted([replace(case, fold=str(index)) for index, case in enumerate(cohort())]).figures["quality"]
    assert figures["cases"] == 12
    assert figures["without_estimate"] == 2
    assert figures["mean_absolute_error"] == pytest.approx(0)
    assert figures["intervals"] == 0
    assert math.isnan(figures["interval_coverage"])
    assert (figures["failures"], figures["failures_not_accepted"]) == (7, 1)
    assert figures["good_not_accepted"] == pytest.approx(1 / 5)


def test_two_folds_of_very_different_quality_are_doubted():
    """Fold 0 around 0.7 and fold 1 around 0.3, at one entropy: the other fold's mean is off by 0.4 on average.

    The mean of all cases, 0.5, is off by 0.2. The cases are 0.01 or 0.03 off their fold's mean: squares of 0.004.
    """
    dice = {"0": (0.67, 0.69, 0.71, 0.73), "1": (0.27, 0.29, 0.31, 0.33)}
    cases = [
        replace(simulated(10 * int(fold) + n, fold=fold, dice=one, voxels=4), row={"mean_entropy": 0.1, "flags": []})
        for fold, values in dice.items()
        for n, one in enumerate(values)
    ]
    calibration = fitted(cases, confidence="mean_entropy")
    figures = calibration.figures
    assert figures["quality"]["mean_absolute_error"] == pytest.approx(0.4)
    assert figures["quality"]["mean_absolute_error_of_mean"] == pytest.approx(0.2)
    assert figures["folds"]["between"] == pytest.approx(0.4 / math.sqrt(2))
    assert figures["folds"]["within"] == pytest.approx(math.sqrt(0.004 / 6))
    told = " ".join(doubts(calibration))
    assert "off by 0.400" in told
    assert "The folds disagree" in told
    assert "0 of 8 cases are good" in told


def test_masks_miss_no_more_than_agreed():
    """All foreground has 0.4, so the mask must reach down to it, whatever is allowed to be missed."""
    mask = fitted(cohort(12), miss_rate=0.2).mask
    assert 0.35 < mask.threshold <= 0.4
    assert (mask.alpha, mask.risk, mask.patients) == (0.2, 0, 12)


def test_by_default_there_is_a_mask_from_nine_patients_on():
    """1/(9 + 1) is 0.1."""
    assert fitted(cohort(9)).mask.alpha == 0.1
    assert fitted(cohort(8)).mask is None
    frames = [replace(case, patient=f"patient_{index // 2}") for index, case in enumerate(cohort(12))]
    assert mask_of(frames, None) is None  # six patients


def test_a_miss_rate_that_the_patients_do_not_allow_is_refused():
    with pytest.raises(ValueError, match=r"at least 1/\(n \+ 1\) .*found 0\.05 with 12"):
        fitted(cohort(12), miss_rate=0.05)


# --- patients ---


@pytest.mark.parametrize("patients", [["p"] * 4, []])
def test_at_least_two_patients_are_needed(patients):
    cases = [simulated(number, patient=patient) for number, patient in enumerate(patients)]
    with pytest.raises(ValueError, match=rf"two patients; found {len(patients)} cases of {min(1, len(patients))}\."):
        fitted(cases)


def parts_of(cases: Sequence[CalibrationCase]) -> list[tuple[list[str], list[str]]]:
    return [([case.case for case in one], [case.case for case in other]) for one, other in held_out_parts(cases)]


def test_a_fold_at_a_time_is_left_out_with_its_patients():
    """The patient of 0 and 1 is in both folds: while one of the cases is measured, the other is not fitted to."""
    patients, folds = ["p", "p", "q", "r"], ["0", "1", "0", "1"]
    cases = [simulated(n, patient=patients[n], fold=folds[n], voxels=4) for n in range(4)]
    assert parts_of(cases) == [
        (["case_3"], ["case_0", "case_2"]),
        (["case_2"], ["case_1", "case_3"]),
    ]


def test_of_one_fold_a_fifth_of_the_patients_is_left_out():
    cases = [simulated(number, patient=f"p{number // 2:02}", voxels=4) for number in range(24)]  # 12 patients
    parts = parts_of(cases)
    assert len(parts) == 5
    assert sorted(name for _, measured in parts for name in measured) == sorted(case.case for case in cases)
    patient = {case.case: case.patient for case in cases}
    for fitting, measured in parts:
        assert len(fitting) + len(measured) == 24
        assert not {patient[name] for name in fitting} & {patient[name] for name in measured}
        assert len(measured) in (4, 6)


def test_with_two_patients_nothing_can_be_measured_of_predicted_dice():
    """Without one of them there is one left, and a map of one patient has no interval."""
    figures = held_out_quality(cohort(2), "pairwise_dice", FitOptions())
    assert (figures["cases"], figures["without_estimate"], figures["failures"]) == (0, 0, 0)
    assert math.isnan(figures["mean_absolute_error"])


def test_a_share_of_nothing_is_not_defined():
    assert share_where([True, False, True], [True, True, False]) == 0.5
    assert math.isnan(share_where([True], [False]))


# --- the file ---


def test_what_was_fitted_can_be_saved(tmp_path):
    """Also to JSON as it is: no NumPy number is left."""
    calibration = fitted(cohort())
    json.dumps(calibration.cases)
    calibration.save(tmp_path / "calibration.json")
    loaded = Calibration.load(tmp_path / "calibration.json")
    assert loaded.temperature == calibration.temperature
    assert loaded.quality == calibration.quality
    assert (loaded.threshold, loaded.mask) == (calibration.threshold, calibration.mask)
    assert loaded.cases[0] == {
        "case": "case_0", "patient": "patient_0", "pairwise_dice": 0.5, "mean_entropy": 0.1, "flags": [], "dice": 0.5
    }  # fmt: skip
