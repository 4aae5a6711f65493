"""Prediction with a calibration: what changes, what must not, and what the mask covers."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_ext.calibration.model_calibration import Calibration, CalibrationError
from nnunet_ext.calibration.quality import QualityMap
from nnunet_ext.calibration.risk_control import MaskThreshold
from nnunet_ext.calibration.temperature import Temperature
from nnunet_ext.calibration.verdict import Threshold
from nnunet_ext.cli import main
from nnunet_ext.inference.accumulation.case_frame import CaseFrame, PreparedCase
from nnunet_ext.inference.accumulation.case_sums import CaseSums, SumOptions
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.inference.finish import finish, stages_for
from nnunet_ext.inference.passes import Pass
from nnunet_ext.inference.sliding_window import tile_image
from nnunet_ext.inference.transforms.flip import IDENTITY
from nnunet_ext.labels import regions_of
from nnunet_ext.models.members import MemberRule
from nnunet_ext.models.model import Model, load_model
from nnunet_ext.options import OutputOptions
from nnunet_ext.prediction_folder.agreement import require_agreement
from nnunet_ext.prediction_folder.case_files import CasePrediction
from nnunet_ext.prediction_folder.provenance import OtherEnsembleError

TENTHS = tuple(number / 10 for number in range(11))
NO_TILES = tile_image(torch.zeros(1, 1, 4, 4), (4, 4))  # the network does not run in most of these tests
TWO_LABELS = {"background": 0, "organ": 1}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}
# In a row of four voxels nnU-Net's crop holds 1 and 2; two members give these probabilities of the organ.
PREPARED = PreparedCase(
    NO_TILES,
    {
        "spacing": [4.0, 1.0, 1.0],
        "shape_before_cropping": (1, 1, 4),
        "bbox_used_for_cropping": [[0, 1], [0, 1], [1, 3]],
        "shape_after_cropping_and_before_resampling": (1, 1, 2),
    },
)


def calibration_of(
    *temperatures: float, mask: float | None = 0.1, regions: bool = False, **changes: Any
) -> Calibration:
    """Predicted Dice is the pairwise Dice; at 0.3 and below cases are flagged."""
    calibration = Calibration(
        temperature=Temperature(temperatures, regions),
        confidence="pairwise_dice",
        quality=QualityMap(TENTHS, TENTHS, -0.1, 0.1, 0.9, 100, 50),
        threshold=Threshold(0.3, 0.2, 0.95, 0.2, 20, 100),
        mask=None if mask is None else MaskThreshold(mask, 0.1, 0.08, 40, 0),
        settings={},
        fitted_on={"members": []},
        figures={},
        cases=[],
    )
    return replace(calibration, **changes)


@pytest.fixture
def two_members(make_model_folder: Callable[..., Path]) -> Callable[..., CaseSums]:
    """Two members' probabilities, one row per output without background, in the box of the case above."""

    def make(first: Sequence[Any], second: Sequence[Any], *, regions: bool = False, **settings: Any) -> CaseSums:
        labels = {"labels": REGIONS, "regions_class_order": [1, 2]} if regions else {"labels": TWO_LABELS}
        model: Model = load_model(
            make_model_folder(**labels), None, MemberRule.parse("final"), device=torch.device("cpu")
        )
        ensemble = CaseSums(CaseFrame([model], [PREPARED]), model.labels, SumOptions(with_variance=True), **settings)
        for name, probabilities in (("first", first), ("second", second)):
            p = torch.tensor(probabilities).reshape(-1, 1, 1, 2)
            logits = torch.logit(p) if regions else torch.cat([torch.zeros_like(p), torch.logit(p)])
            ensemble.add(0, Pass(name=name, member=model.members[0], transforms=(IDENTITY,), weight=1.0), logits)
        return ensemble

    return make


def finished(ensemble: CaseSums, calibration: Calibration | None, maps: Sequence[str] = ()) -> CasePrediction:
    options = OutputOptions(maps=maps, save_probabilities=True)
    structures = regions_of(ensemble.frame.models[0].dataset_json)
    return finish("case", ensemble, structures, stages_for(options, calibration), options)


def entropy(p: float) -> float:
    """Of two classes, by ln 2."""
    return -(p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2)


# --- one case ---


def test_probabilities_are_calibrated_and_background_stays_certain_outside(two_members):
    """Means 0.2 and 0.8. With T = 2: √0.2/(√0.2 + √0.8) = 1/3 and 2/3. Outside of the crop is background."""
    ensemble = two_members([0.1, 0.9], [0.3, 0.7])
    plain, calibrated = (finished(ensemble, each) for each in (None, calibration_of(2.0, 2.0)))
    np.testing.assert_allclose(plain.probabilities[1, 0, 0], [0, 0.2, 0.8, 0], atol=1e-6)
    np.testing.assert_allclose(calibrated.probabilities[1, 0, 0], [0, 1 / 3, 2 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(calibrated.probabilities.sum(0), np.ones((1, 1, 4)), atol=1e-6)


def test_regions_have_a_temperature_each(two_members):
    """Odds 0.8 : 0.2 = 4 become 2 with T = 2, that is 2/3; odds 0.1 : 0.9 = 1/9 become 1/3, that is 1/4."""
    ensemble = two_members([[0.8, 0.8], [0.1, 0.1]], [[0.8, 0.8], [0.1, 0.1]], regions=True)
    calibrated = finished(ensemble, calibration_of(2.0, 2.0, regions=True), ["confidence"])
    np.testing.assert_allclose(
        calibrated.probabilities[:, 0, 0], [[0, 2 / 3, 2 / 3, 0], [0, 0.25, 0.25, 0]], atol=1e-6
    )
    assert calibrated.segmentation.tolist() == [[[0, 1, 1, 0]]]
    np.testing.assert_allclose(
        calibrated.maps["confidence"][0, 0], [1, 2 / 3, 2 / 3, 1], atol=1e-6
    )  # the least certain


def test_the_segmentation_stays_even_if_another_class_becomes_the_most_likely(two_members):
    """Organ 0.6 with T = 1, background 0.4 with T = 2: √0.4 = 0.63 is more than 0.6."""
    ensemble = two_members([0.6, 0.6], [0.6, 0.6])
    plain, calibrated = (finished(ensemble, each) for each in (None, calibration_of(2.0, 1.0)))
    assert calibrated.probabilities[1, 0, 0, 1] < 0.5
    assert plain.segmentation.tolist() == calibrated.segmentation.tolist() == [[[0, 1, 1, 0]]]


def test_maps_of_the_mean_are_of_calibrated_probabilities_and_those_of_members_are_not(two_members):
    ensemble = two_members([0.1, 0.9], [0.3, 0.7])
    maps = ["entropy", "confidence", "mutual_information", "expected_entropy", "variance"]
    plain, calibrated = (finished(ensemble, each, maps) for each in (None, calibration_of(2.0, 2.0)))
    np.testing.assert_allclose(plain.maps["entropy"][0, 0], [0, entropy(0.2), entropy(0.8), 0], atol=1e-6)
    np.testing.assert_allclose(calibrated.maps["entropy"][0, 0], [0, entropy(1 / 3), entropy(2 / 3), 0], atol=1e-6)
    np.testing.assert_allclose(calibrated.maps["confidence"][0, 0], [1, 2 / 3, 2 / 3, 1], atol=1e-6)
    for name in ("mutual_information", "expected_entropy", "variance"):
        np.testing.assert_array_equal(calibrated.maps[name], plain.maps[name])
    assert list(calibrated.maps) == maps


def test_the_row_is_the_one_that_calibration_was_fitted_to_and_gets_its_columns(two_members):
    """Not of the calibrated entropy. Members have voxel 2 and voxels 1, 2: pairwise Dice 2/3."""
    ensemble = two_members([0.1, 0.9], [0.6, 0.7])
    plain, calibrated = (finished(ensemble, each, ["entropy"]) for each in (None, calibration_of(2.0, 2.0)))
    assert {name: calibrated.row[name] for name in plain.row} == plain.row
    assert calibrated.row["mean_entropy"] == pytest.approx((entropy(0.35) + entropy(0.8)) / 4)
    assert calibrated.maps["entropy"].mean() > calibrated.row["mean_entropy"]
    assert calibrated.row["predicted_dice"] == pytest.approx(2 / 3)
    assert calibrated.row["predicted_dice_low"] == pytest.approx(0.6 - 0.1)  # of the knot below
    assert calibrated.row["verdict"] == "accept"
    assert "verdict" not in plain.row


def test_a_case_whose_members_are_all_empty_is_not_accepted(two_members):
    row = finished(two_members([0.1, 0.1], [0.1, 0.1]), calibration_of(1.0, 1.0)).row
    assert (row["pairwise_dice"], row["flags"]) == (1, ["empty_segmentation", "all_members_empty"])
    assert row["verdict"] == "review"


# --- covering mask ---


def test_the_mask_covers_what_the_uncalibrated_probability_reaches(two_members):
    """0.2 and 0.8 with a threshold of 0.25. With T = 2 they are 1/3 and 2/3, and both would be above it."""
    ensemble = two_members([0.1, 0.9], [0.3, 0.7])
    mask = finished(ensemble, calibration_of(2.0, 2.0, mask=0.25)).covering_mask
    assert mask.tolist() == [[[0, 0, 1, 0]]]
    assert mask.dtype == np.uint8


def test_a_mask_of_everything_reaches_beyond_nnunets_crop(two_members):
    """At threshold 0 only the whole image keeps the guarantee."""
    mask = finished(two_members([0.1, 0.9], [0.3, 0.7]), calibration_of(1.0, 1.0, mask=0.0)).covering_mask
    assert mask.tolist() == [[[1, 1, 1, 1]]]


def test_the_mask_of_regions_is_their_union(two_members):
    ensemble = two_members([[0.3, 0.1], [0.1, 0.4]], [[0.3, 0.1], [0.1, 0.4]], regions=True)
    mask = finished(ensemble, calibration_of(1.0, 1.0, mask=0.25, regions=True)).covering_mask
    assert mask.tolist() == [[[0, 1, 1, 0]]]


@pytest.mark.parametrize("calibration", [None, calibration_of(1.0, 1.0, mask=None)])
def test_without_a_threshold_there_is_no_mask(two_members, calibration):
    assert finished(two_members([0.1, 0.9], [0.3, 0.7]), calibration).covering_mask is None


# --- folders ---


def opened(folder: Path, **settings: Any) -> EnsembleEngine:
    return EnsembleEngine.from_model_folders(folder, device="cpu", allow_tqdm=False, tta="none", **settings)


@pytest.fixture
def folder(make_model_folder: Callable[..., Path]) -> Path:
    """Two members; small logits, so that probabilities are not all 0 or 1."""
    return make_model_folder(folds=(0, 1), logit_scale=3.0)


@pytest.fixture
def images(make_image: Callable[..., Path], tmp_path: Path) -> Path:
    for number in range(2):
        make_image(tmp_path / "images", f"c{number}", shape_zyx=(2, 20, 20), seed=number)
    return tmp_path / "images"


def voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def table(output: Path) -> list[dict[str, str]]:
    with (output / "cases.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_files_of_a_calibrated_prediction(folder, images, tmp_path):
    """Compared with the files of an uncalibrated prediction: p^(1/T) normalised, by NumPy."""
    predictor = opened(folder)
    predictor.predict_from_files(images, tmp_path / "plain", save_probabilities=True)
    calibrated = opened(folder, calibration=calibration_of(1.7, 1.7, 1.7, mask=0.25, settings=predictor.settings))
    calibrated.predict_from_files(images, tmp_path / "ours", save_probabilities=True)
    plain, ours = (np.load(tmp_path / name / "c0.npz")["probabilities"] for name in ("plain", "ours"))
    powers = plain.astype(np.float64) ** (1 / 1.7)
    np.testing.assert_allclose(ours, powers / powers.sum(axis=0), atol=1e-5)
    assert np.abs(ours - plain).max() > 0.02
    for case in ("c0", "c1"):
        np.testing.assert_array_equal(
            voxels(tmp_path / "ours" / f"{case}.nii.gz"), voxels(tmp_path / "plain" / f"{case}.nii.gz")
        )
    shares = -(ours * np.log(np.maximum(ours, 1e-30))).sum(axis=0) / math.log(3)
    np.testing.assert_allclose(voxels(tmp_path / "ours" / "maps" / "entropy" / "c0.nii.gz"), shares, atol=1e-4)
    covering = voxels(tmp_path / "ours" / "covering_masks" / "c0.nii.gz")
    np.testing.assert_array_equal(covering, plain[1:].sum(axis=0) >= 0.25)
    assert covering[voxels(tmp_path / "ours" / "c0.nii.gz") > 0].all()  # the most likely of three has at least 1/3
    for before, after in zip(table(tmp_path / "plain"), table(tmp_path / "ours"), strict=True):
        assert {name: after[name] for name in before} == before
        assert after["verdict"] in ("accept", "review", "reject")
    assert not (tmp_path / "plain" / "covering_masks").exists()


def test_continuing_asks_for_the_mask_as_well(folder, images, tmp_path):
    output = tmp_path / "out"
    calibration = calibration_of(1.7, 1.7, 1.7, settings=opened(folder).settings)
    predictor = opened(folder, calibration=calibration)
    continued = partial(predictor.predict_from_files, images, output, continue_prediction=True)
    assert continued().predicted == ["c0", "c1"]
    (output / "covering_masks" / "c1.nii.gz").unlink()
    report = continued()
    assert (report.skipped, report.predicted) == (["c0"], ["c1"])


def test_a_folder_of_another_calibration_or_of_none_is_refused(folder, images, tmp_path):
    plain = opened(folder)
    calibration = calibration_of(1.7, 1.7, 1.7, settings=plain.settings)
    plain.predict_from_files(images, tmp_path / "plain")
    calibrated = opened(folder, calibration=calibration)
    with pytest.raises(OtherEnsembleError, match="stages: found describe, asked for describe, calibrate"):
        calibrated.predict_from_files(images, tmp_path / "plain", continue_prediction=True)
    calibrated.predict_from_files(images, tmp_path / "calibrated")
    without_mask = opened(folder, calibration=replace(calibration, mask=None))
    with pytest.raises(OtherEnsembleError, match=r"calibration: found [0-9a-f]{12}, asked for [0-9a-f]{12}"):
        without_mask.predict_from_files(images, tmp_path / "calibrated", continue_prediction=True)
    require_agreement(tmp_path / "calibrated")
    calibration.save(tmp_path / "copy.json")
    copy = opened(folder, calibration=Calibration.load(tmp_path / "copy.json"))
    assert copy.predict_from_files(images, tmp_path / "calibrated", continue_prediction=True).skipped == ["c0", "c1"]


@pytest.mark.parametrize("other", [{"tile_step_size": 0.25}, {"average": "logits"}, {"tta_members": True}])
def test_a_calibration_of_another_ensemble_is_refused(folder, other):
    calibration = calibration_of(1.0, 1.0, 1.0, settings=opened(folder).settings)
    with pytest.raises(CalibrationError, match="belongs to the ensemble that it was fitted for"):
        opened(folder, calibration=calibration, **other)


def test_members_that_were_trained_again_are_refused(folder):
    predictor = opened(folder)
    members = [{"name": member.name, "sha256": member.sha256} for member in predictor.models[0].members]
    calibration = calibration_of(1.0, 1.0, 1.0, settings=predictor.settings, fitted_on={"members": members})
    opened(folder, calibration=calibration)
    members[1]["sha256"] = "of an earlier training"
    with pytest.raises(CalibrationError, match="fold_1/checkpoint_final is another file now"):
        opened(folder, calibration=calibration)


def test_other_folds_are_the_same_ensemble(folder):
    """A cross-validation judges each fold's members; the model that predicts has all of them."""
    one = opened(folder, folds=[0])
    opened(folder, calibration=calibration_of(1.0, 1.0, 1.0, settings=one.settings))


def test_each_fold_is_judged_by_its_own_members_as_it_was_in_calibration(make_model_folder, images, tmp_path):
    """The confidence is the mean of what single folds have when they predict alone; the rest is the ensemble's."""
    model_folder = make_model_folder(folds=(0, 1, 2), logit_scale=3.0)
    curve = {"confidence": "mean_entropy", "quality": QualityMap((-1.0, 0.0), (0.0, 1.0), -0.1, 0.1, 0.9, 100, 50)}
    tables = {}
    for name, folds, changes in (("0", [0], None), ("1", [1], None), ("2", [2], None), ("plain", None, None),
                                 ("ours", None, curve)):  # fmt: skip
        engine = opened(model_folder, folds=folds)
        if changes is not None:
            calibration = calibration_of(1.0, 1.0, 1.0, settings=engine.settings, **changes)
            engine = opened(model_folder, folds=folds, calibration=calibration)
        engine.predict_from_files(images, tmp_path / name)
        tables[name] = table(tmp_path / name)
    for number, (plain, ours) in enumerate(zip(tables["plain"], tables["ours"], strict=True)):
        assert {column: ours[column] for column in plain} == plain
        of_folds = np.mean([float(tables[fold][number]["mean_entropy"]) for fold in ("0", "1", "2")])
        assert float(ours["judged_confidence"]) == pytest.approx(of_folds, abs=1e-5)
        assert float(ours["predicted_dice"]) == pytest.approx(1 - of_folds, abs=1e-5)
        assert float(plain["mean_entropy"]) > of_folds + 0.01  # the ensemble is less confident than its folds


def test_early_exit_with_several_folds_is_refused(folder):
    settings = opened(folder, early_exit="label").settings
    calibration = calibration_of(1.0, 1.0, 1.0, settings=settings)
    opened(folder, early_exit="label", folds=[0], calibration=calibration)
    with pytest.raises(CalibrationError, match="--early-exit"):
        opened(folder, early_exit="label", calibration=calibration)


def test_settings_come_back_from_a_file(folder, tmp_path):
    predictor = opened(folder, model_weights=[2])
    calibration_of(1.0, 1.0, 1.0, settings=predictor.settings).save(tmp_path / "calibration.json")
    opened(folder, model_weights=[2], calibration=Calibration.load(tmp_path / "calibration.json"))


# --- the command ---


def predict(folder: Path, images: Path, output: Path, *flags: str) -> int:
    return main(
        ["predict", "-i", str(images), "-o", str(output), "-m", str(folder), "-device", "cpu", "--disable_tta",
         "--disable_progress_bar", *flags]
    )  # fmt: skip


def test_the_command_takes_the_calibration_of_the_model_folder(folder, images, tmp_path, monkeypatch):
    monkeypatch.setattr("nnunet_ext.machine.devices.usable_cores", lambda: 1)
    calibration = calibration_of(1.7, 1.7, 1.7, settings=opened(folder).settings)
    calibration.save(folder / "calibration.json")
    assert predict(folder, images, tmp_path / "out", "--calibrated") == 0
    assert all(row["verdict"] for row in table(tmp_path / "out"))
    replace(calibration, mask=None).save(tmp_path / "other.json")
    assert predict(folder, images, tmp_path / "other", "--calibrated", str(tmp_path / "other.json")) == 0
    assert not (tmp_path / "other" / "covering_masks").exists()


def test_the_command_refuses_a_calibration_that_is_missing_or_of_another_ensemble(
    folder, images, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("nnunet_ext.machine.devices.usable_cores", lambda: 1)
    assert predict(folder, images, tmp_path / "out", "--calibrated") == 1
    assert "calibration.json does not exist. Run nnunet_ext calibrate" in capsys.readouterr().err
    calibration_of(1.0, 1.0, 1.0, settings=opened(folder).settings).save(folder / "calibration.json")
    assert predict(folder, images, tmp_path / "out", "--calibrated", "-step_size", "0.25") == 1
    assert "its step_size is 0.5, this ensemble's is 0.25" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
