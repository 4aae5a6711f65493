"""The file of a calibration: what goes in comes out, what is damaged is refused, and what a row gets."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nnunet_ext.calibration.model_calibration import Calibration, CalibrationError
from nnunet_ext.calibration.quality import QualityMap
from nnunet_ext.calibration.risk_control import MaskThreshold
from nnunet_ext.calibration.temperature import Temperature
from nnunet_ext.calibration.verdict import Threshold
from nnunet_ext.prediction_folder.contents import COLUMNS

SETTINGS = {"models": ["nnUNetTrainer__nnUNetPlans__2d"], "weights": None, "members": "final", "step_size": 0.5}
MEMBERS = [{"name": f"fold_{fold}/checkpoint_final", "sha256": f"hash of {fold}"} for fold in (0, 1)]
TENTHS = tuple(number / 10 for number in range(2, 11))
# Predicted Dice is the pairwise Dice, from 0.2 to 1; the interval is 0.1 to either side of each tenth. At 0.8 a case
# is flagged.
CALIBRATION = Calibration(
    temperature=Temperature((1.5, 1.5, 1.5), regions=False),
    confidence="pairwise_dice",
    quality=QualityMap(TENTHS, TENTHS, -0.1, 0.1, 0.9, 100, 50),
    threshold=Threshold(0.8, 0.75, 0.95, 0.2, 20, 100),
    mask=MaskThreshold(0.25, 0.1, 0.08, 40, 1),
    settings=SETTINGS,
    fitted_on={"folds": ["0", "1"], "members": MEMBERS, "cases": 100, "patients": 50},
    figures={"temperature": {"none": {"ece": 0.1, "nll": 0.2, "cases": 9}}},
    cases=[{"case": "a", "patient": "p", "pairwise_dice": 0.9, "flags": [], "dice": 0.8}],
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    CALIBRATION.save(tmp_path / "calibration.json")
    return tmp_path / "calibration.json"


def row(pairwise_dice: float, *flags: str) -> dict[str, Any]:
    return {"members": 4, "pairwise_dice": pairwise_dice, "flags": list(flags)}


# --- the file ---


def test_what_is_saved_is_what_is_loaded(file):
    assert Calibration.load(file) == CALIBRATION


def test_a_calibration_without_mask_and_without_failures(tmp_path):
    calibration = replace(CALIBRATION, mask=None, threshold=Threshold(None, 0.75, None, None, 0, 100))
    calibration.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == calibration


def test_what_is_not_defined_is_null(tmp_path):
    figures = {"quality": {"mean_absolute_error": math.nan}}
    replace(CALIBRATION, figures=figures).save(tmp_path / "calibration.json")
    assert "NaN" not in (tmp_path / "calibration.json").read_text()
    assert Calibration.load(tmp_path / "calibration.json").figures == {"quality": {"mean_absolute_error": None}}


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(CalibrationError, match=r"calibration\.json does not exist\. Run nnunet_ext calibrate"):
        Calibration.load(tmp_path / "calibration.json")


@pytest.mark.parametrize("text", ["", "no json", "[]", "null", "{}", '{"format": 1}', b"\xff\xfe"])
def test_a_file_that_is_no_calibration_is_refused(text, tmp_path):
    path = tmp_path / "calibration.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CalibrationError, match=r"is not a calibration, or is damaged .*calibrate again"):
        Calibration.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"temperature": {"values": [0.0], "regions": False}},  # above 0
        {"temperature": {"values": [1.0]}},
        {"quality": None},
        {"threshold": {}},
        {"mask": {"threshold": "low"}},
        {"confidence": "no such column"},
        {"fitted_on": {"folds": ["0"]}},
        {"fitted_on": {"members": ["fold_0/checkpoint_final"]}},
    ],
    ids=lambda change: "-".join(change),
)
def test_a_file_with_a_damaged_part_is_refused(change, file):
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | change))
    with pytest.raises(CalibrationError, match="is not a calibration, or is damaged"):
        Calibration.load(file)


@pytest.mark.parametrize("part", ["settings", "cases", "figures", "fitted_on", "mask", "confidence"])
def test_a_file_that_lacks_a_part_is_refused(part, file):
    content = json.loads(file.read_text())
    del content[part]
    file.write_text(json.dumps(content))
    with pytest.raises(CalibrationError, match=f"KeyError: '{part}'"):
        Calibration.load(file)


# --- the ensemble ---


def test_the_same_ensemble_is_accepted_also_after_the_file(file):
    CALIBRATION.require_settings(SETTINGS)
    Calibration.load(file).require_settings({**SETTINGS, "of a later version": None})


@pytest.mark.parametrize(("fitted", "found"), [({}, {"postprocessing": "a"}), ({"postprocessing": "a"}, {})])
def test_a_setting_that_only_one_of_the_two_has_is_another_ensemble(fitted, found):
    calibration = replace(CALIBRATION, settings={**SETTINGS, **fitted})
    with pytest.raises(CalibrationError, match=r"its postprocessing is .*, this ensemble's is "):
        calibration.require_settings({**SETTINGS, **found})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("members", "best"),
        ("models", ["a", "b"]),
        ("weights", [1.0]),
        ("step_size", 0.25),
        ("members", None),
        ("tta", "full"),
    ],
)
def test_another_ensemble_is_refused(name, value):
    with pytest.raises(CalibrationError, match=rf"its {name} is .*, this ensemble's is .*calibrate with these flags"):
        CALIBRATION.require_settings({**SETTINGS, name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("adapt", {"steps": 10}), ("early_exit", "label"), ("fast_resampling", True)]
)
def test_a_setting_that_is_recorded_only_where_it_is_used_is_refused_in_both_directions(name, value):
    with_it = replace(CALIBRATION, settings={**SETTINGS, name: value})
    with_it.require_settings({**SETTINGS, name: value})
    with pytest.raises(CalibrationError, match=rf"its {name} is None, this ensemble's is .*"):
        CALIBRATION.require_settings({**SETTINGS, name: value})
    with pytest.raises(CalibrationError, match=rf"its {name} is .*, this ensemble's is None"):
        with_it.require_settings(SETTINGS)


def test_members_that_were_fitted_are_accepted_and_so_are_those_of_other_folds():
    CALIBRATION.require_members([("fold_1/checkpoint_final", "hash of 1")])
    CALIBRATION.require_members([("fold_2/checkpoint_final", "hash of 2")])


def test_a_member_that_was_trained_again_is_refused():
    with pytest.raises(CalibrationError, match=r"fold_1/checkpoint_final is another file now.*calibrate again"):
        CALIBRATION.require_members([("fold_0/checkpoint_final", "hash of 0"), ("fold_1/checkpoint_final", "new")])


# --- rows ---


def test_a_confident_case_is_accepted():
    columns = CALIBRATION.columns(row(0.9))
    assert list(columns) == [
        "judged_confidence", "predicted_dice", "predicted_dice_low", "predicted_dice_high", "verdict",
        "verdict_reason",
    ]  # fmt: skip
    assert list(columns) == [column.name for column in COLUMNS if column.calibrated]
    assert [columns[name] for name in list(columns)[:4]] == pytest.approx([0.9, 0.9, 0.8, 1.0])
    assert columns["verdict"] == "accept"


def test_a_case_at_the_threshold_is_reviewed_and_one_that_is_bad_rejected():
    assert CALIBRATION.columns(row(0.8))["verdict"] == "review"
    rejected = CALIBRATION.columns(row(0.5))
    assert rejected["verdict"] == "reject"
    assert "predicted Dice 0.50 is below 0.75" in rejected["verdict_reason"]


@pytest.mark.parametrize("flag", ["all_members_empty", "empty_segmentation"])
def test_a_flagged_case_is_never_accepted_however_confident_it_is(flag):
    """Members that all say nothing agree perfectly: their pairwise Dice reads 1."""
    columns = CALIBRATION.columns(row(1.0, flag))
    assert columns["verdict"] == "review"
    assert flag in columns["verdict_reason"]


def test_an_uncertainty_is_turned_and_told_as_it_stands_in_the_table():
    calibration = replace(
        CALIBRATION,
        confidence="mean_entropy",
        quality=QualityMap((-0.5, -0.1), (0.2, 0.9), -0.1, 0.1, 0.9, 100, 50),
        threshold=Threshold(-0.2, 0.75, 0.95, 0.2, 20, 100),
    )
    columns = calibration.columns({"mean_entropy": 0.1, "flags": []})
    assert (columns["judged_confidence"], columns["predicted_dice"]) == pytest.approx((0.1, 0.9))
    reviewed = calibration.columns({"mean_entropy": 0.6, "flags": []})
    assert "mean_entropy 0.60 is above 0.50, the least confident" in reviewed["verdict_reason"]


def test_of_several_folds_the_mean_of_their_confidences_is_judged_and_the_flags_are_those_of_the_ensemble():
    """Folds of 0.8 and 1.0, as the cases of the fit; the ensemble alone, 0.6, would be rejected."""
    columns = CALIBRATION.columns(row(0.6), [row(0.8, "empty_segmentation"), row(1.0)])
    assert [columns[name] for name in list(columns)[:4]] == pytest.approx([0.9, 0.9, 0.8, 1.0])
    assert (columns["verdict"], columns["verdict_reason"]) == (
        "accept",
        "predicted Dice 0.90, interval 0.80 to 1.00 at the level 0.9",
    )
    assert CALIBRATION.columns(row(0.6, "empty_segmentation"), [row(0.8), row(1.0)])["verdict"] == "review"


def test_the_interval_of_several_folds_reaches_up_to_that_of_the_best():
    """Folds of 0.3 and 0.5 have intervals of 0.2 to 0.4 and of 0.4 to 0.6; their mean 0.4 has 0.3 to 0.5."""
    columns = CALIBRATION.columns(row(0.4), [row(0.3), row(0.5)])
    assert [columns[name] for name in list(columns)[:4]] == pytest.approx([0.4, 0.4, 0.3, 0.6])


def test_a_case_is_reviewed_where_one_fold_has_no_confidence():
    columns = CALIBRATION.columns(row(0.9), [row(0.9), row(math.nan)])
    assert (columns["predicted_dice"], columns["verdict"]) == (None, "review")


@pytest.mark.parametrize(("folds", "early_exit"), [(1, "label"), (3, None)])
def test_early_exit_with_one_fold_and_several_folds_without_it_are_accepted(folds, early_exit):
    CALIBRATION.require_every_pass(folds, early_exit)


def test_early_exit_with_several_folds_is_refused():
    with pytest.raises(CalibrationError, match=r"--early-exit does not run; found both, and 3 folds\. .*-f 0"):
        CALIBRATION.require_every_pass(3, "label")


def test_a_case_without_the_confidence_is_reviewed():
    """A single member has no pairwise Dice."""
    columns = CALIBRATION.columns(row(math.nan))
    assert columns["verdict"] == "review"
    assert columns["predicted_dice"] is None
    assert (columns["predicted_dice_low"], columns["predicted_dice_high"]) == (None, None)


def test_a_case_unlike_those_of_calibration_has_no_predicted_dice(file):
    """The range is that of the map's knots, so files of earlier versions have it, too."""
    columns = Calibration.load(file).columns(row(0.1))
    assert columns["predicted_dice"] is None
    assert (columns["predicted_dice_low"], columns["predicted_dice_high"]) == (None, None)
    assert columns["verdict"] == "review"
    assert "pairwise_dice 0.10 is below 0.20, the least confident" in columns["verdict_reason"]
