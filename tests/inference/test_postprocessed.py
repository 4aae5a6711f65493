"""Prediction with post-processing: what changes, what does not, and what it is refused with."""

from __future__ import annotations

import csv
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation

from nnunet_ext.calibration.model_calibration import Calibration, CalibrationError
from nnunet_ext.calibration.quality import QualityMap
from nnunet_ext.calibration.temperature import Temperature
from nnunet_ext.calibration.verdict import Threshold
from nnunet_ext.cli import main
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.labels import regions_of
from nnunet_ext.postprocessing.chain import PostProcessing
from nnunet_ext.postprocessing.hysteresis import Hysteresis
from nnunet_ext.postprocessing.largest_component import LargestComponent
from nnunet_ext.postprocessing.minimum_size import MinimumSize
from nnunet_ext.postprocessing.step import PostProcessingError, SegmentedCase
from nnunet_ext.postprocessing.structures import anatomy_of
from nnunet_ext.prediction_folder.provenance import OtherEnsembleError

LARGEST = PostProcessing((LargestComponent("left", (1,)), LargestComponent("right", (2,))))


@pytest.fixture
def folder(make_model_folder: Callable[..., Path]) -> Path:
    """Two folds with random weights, whose structures have many components; its own steps keep the largest."""
    model_folder = make_model_folder(folds=(0, 1), logit_scale=3.0)
    LARGEST.save(model_folder / "postprocess.json")
    return model_folder


@pytest.fixture
def images(make_image: Callable[..., Path], tmp_path: Path) -> Path:
    return make_image(tmp_path / "images", "c0", shape_zyx=(2, 20, 20))


def opened(folder: Path, **settings: Any) -> EnsembleEngine:
    return EnsembleEngine.from_model_folders(folder, device="cpu", allow_tqdm=False, tta="none", **settings)


def voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def row(output: Path) -> dict[str, str]:
    with (output / "cases.csv").open(newline="", encoding="utf-8") as file:
        return next(csv.DictReader(file))


def calibration_of(settings: dict[str, Any]) -> Calibration:
    """Predicted Dice is 1 minus the foreground entropy."""
    return Calibration(
        temperature=Temperature((1.0, 1.0, 1.0), False),
        confidence="foreground_entropy",
        quality=QualityMap((-1.0, 0.0), (0.0, 1.0), -0.1, 0.1, 0.9, 100, 50),
        threshold=Threshold(0.3, 0.2, 0.95, 0.2, 20, 100),
        mask=None,
        settings=settings,
        fitted_on={"members": []},
        figures={},
        cases=[],
    )


# --- what is written ---


def test_segmentation_and_row_change_and_the_rest_does_not(folder, images, tmp_path):
    """Volumes and the entropy over the foreground are those of what is written; probabilities are the ensemble's."""
    kept = {"maps": ["entropy"], "save_probabilities": True, "save_members": True}
    opened(folder).predict_from_files(images, tmp_path / "plain", **kept)
    opened(folder, postprocess=True).predict_from_files(images, tmp_path / "ours", **kept)
    plain, ours = (voxels(tmp_path / name / "c0.nii.gz") for name in ("plain", "ours"))
    assert (plain != ours).any()
    spacing = (4.0, 1.0, 1.0)
    np.testing.assert_array_equal(ours, LARGEST.apply(SegmentedCase(plain, spacing)))
    for name in ("maps/entropy/c0.nii.gz", *(f"members/fold_{fold}__checkpoint_final/c0.nii.gz" for fold in (0, 1))):
        np.testing.assert_array_equal(voxels(tmp_path / "plain" / name), voxels(tmp_path / "ours" / name))
    of_plain, of_ours = (np.load(tmp_path / name / "c0.npz")["probabilities"] for name in ("plain", "ours"))
    np.testing.assert_array_equal(of_plain, of_ours)
    before, after = row(tmp_path / "plain"), row(tmp_path / "ours")
    for name, label in (("left", 1), ("right", 2)):
        assert float(after[f"volume_ml_{name}"]) == pytest.approx((ours == label).sum() * 4 / 1000)
        assert after[f"volume_cv_{name}"] == before[f"volume_cv_{name}"]
    entropy = voxels(tmp_path / "ours" / "maps" / "entropy" / "c0.nii.gz")
    assert float(after["foreground_entropy"]) == pytest.approx(entropy[ours > 0].mean(), abs=1e-5)
    assert after["foreground_entropy"] != before["foreground_entropy"]
    for column in ("members", "mean_entropy", "mutual_information", "pairwise_dice"):
        assert after[column] == before[column]


def test_steps_with_probabilities_see_those_of_the_ensemble(folder, images, tmp_path):
    steps = tuple(
        Hysteresis(one.name, one.labels, one.paint, one.beneath, one.output, 0.7, 0.3)
        for one in anatomy_of(opened(folder).models[0].dataset_json).structures
    )
    chain = PostProcessing(steps)
    chain.save(tmp_path / "steps.json")
    opened(folder).predict_from_files(images, tmp_path / "plain", save_probabilities=True)
    opened(folder, postprocess=tmp_path / "steps.json").predict_from_files(images, tmp_path / "ours")
    plain = voxels(tmp_path / "plain" / "c0.nii.gz")
    probabilities = np.load(tmp_path / "plain" / "c0.npz")["probabilities"]
    expected = chain.apply(SegmentedCase(plain, (4.0, 1.0, 1.0), probabilities))
    assert (expected != plain).any()
    np.testing.assert_array_equal(voxels(tmp_path / "ours" / "c0.nii.gz"), expected)


def test_a_segmentation_that_is_emptied_is_flagged(folder, images, tmp_path):
    PostProcessing(
        tuple(
            MinimumSize(name, labels, 0, 1e9, keep_largest=False)
            for name, labels in regions_of(opened(folder).models[0].dataset_json).items()
        )
    ).save(folder / "postprocess.json")
    opened(folder, postprocess=True).predict_from_files(images, tmp_path / "out")
    assert not voxels(tmp_path / "out" / "c0.nii.gz").any()
    assert row(tmp_path / "out")["flags"] == "empty_segmentation"


def test_nnunets_own_file_is_honoured_and_several_models_need_a_file(folder, images, tmp_path):
    file = tmp_path / "postprocessing.pkl"
    arguments = [{"labels_or_regions": np.int64(label)} for label in (1, 2)]
    file.write_bytes(pickle.dumps(([remove_all_but_largest_component_from_segmentation] * 2, arguments)))
    flags = ["predict", "-m", str(folder), "-i", str(images), "-device", "cpu", "--disable_progress_bar"]
    assert main([*flags, "-o", str(tmp_path / "own"), "--postprocess"]) == 0
    assert main([*flags, "-o", str(tmp_path / "stock"), "--postprocess", str(file)]) == 0
    np.testing.assert_array_equal(voxels(tmp_path / "own" / "c0.nii.gz"), voxels(tmp_path / "stock" / "c0.nii.gz"))
    with pytest.raises(ValueError, match="several model folders needs a file name"):
        EnsembleEngine.from_model_folders([folder, folder], device="cpu", postprocess=True)


# --- what belongs together ---


def test_a_calibration_without_post_processing_is_refused_with_it_and_the_other_way_round(folder):
    plain, ours = opened(folder), opened(folder, postprocess=True)
    assert "postprocessing" not in plain.settings
    assert ours.settings["postprocessing"] == LARGEST.sha256
    opened(folder, calibration=calibration_of(plain.settings))
    opened(folder, calibration=calibration_of(ours.settings), postprocess=True)
    with pytest.raises(CalibrationError, match=f"its postprocessing is None, this ensemble's is '{LARGEST.sha256}'"):
        opened(folder, calibration=calibration_of(plain.settings), postprocess=True)
    with pytest.raises(CalibrationError, match=f"its postprocessing is '{LARGEST.sha256}', this ensemble's is None"):
        opened(folder, calibration=calibration_of(ours.settings))


def test_a_calibration_with_other_steps_is_refused(folder):
    settings = opened(folder, postprocess=True).settings
    PostProcessing(LARGEST.steps[:1]).save(folder / "postprocess.json")
    with pytest.raises(CalibrationError, match="its postprocessing is"):
        opened(folder, calibration=calibration_of(settings), postprocess=True)


def test_the_confidence_of_each_fold_is_that_of_its_post_processed_segmentation(folder, images, tmp_path):
    """As in calibration, where each fold predicts alone."""
    of_folds = []
    for fold in (0, 1):
        opened(folder, folds=[fold], postprocess=True).predict_from_files(images, tmp_path / str(fold))
        of_folds.append(float(row(tmp_path / str(fold))["foreground_entropy"]))
    calibration = calibration_of(opened(folder, postprocess=True).settings)
    engine = opened(folder, postprocess=True, calibration=calibration)
    engine.predict_from_files(images, tmp_path / "both")
    assert float(row(tmp_path / "both")["judged_confidence"]) == pytest.approx(np.mean(of_folds), abs=1e-5)


def test_a_folder_without_post_processing_is_not_continued_with_it(folder, images, tmp_path):
    opened(folder).predict_from_files(images, tmp_path / "out")
    with pytest.raises(OtherEnsembleError, match="stages: found describe, asked for postprocess, describe"):
        opened(folder, postprocess=True).predict_from_files(images, tmp_path / "out", continue_prediction=True)
    opened(folder, postprocess=True).predict_from_files(images, tmp_path / "ours")
    PostProcessing(LARGEST.steps[:1]).save(folder / "postprocess.json")
    with pytest.raises(OtherEnsembleError, match=r"postprocessing: found [0-9a-f]{12}, asked for [0-9a-f]{12}"):
        opened(folder, postprocess=True).predict_from_files(images, tmp_path / "ours", continue_prediction=True)


def test_steps_of_another_ensemble_are_warned_about(folder, caplog):
    settings = opened(folder).settings
    PostProcessing(LARGEST.steps, settings=settings).save(folder / "postprocess.json")
    with caplog.at_level(logging.WARNING):
        opened(folder, postprocess=True)
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        opened(folder, postprocess=True, average="logits")
    assert "average: 'probabilities' there, 'logits' here" in caplog.text


def test_steps_for_other_labels_are_refused(folder):
    PostProcessing(LARGEST.steps, {"labels": {"background": 0, "organ": 1}}).save(folder / "postprocess.json")
    with pytest.raises(PostProcessingError, match="belongs to the labels that it was chosen for"):
        opened(folder, postprocess=True)


def test_a_missing_file_is_refused(folder):
    (folder / "postprocess.json").unlink()
    with pytest.raises(PostProcessingError, match=r"postprocess\.json does not exist"):
        opened(folder, postprocess=True)
