"""An ensemble of several models with the weights of a file: what it predicts, what it refuses, what it records."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nnunet_ext.calibration.ensemble_weights import EnsembleWeights, EnsembleWeightsError
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.inference.memory_plan import MemoryPlan
from nnunet_ext.options import EnsembleOptions
from nnunet_ext.prediction_folder.case_files import CasePrediction

REGIONS = {"background": 0, "whole": (1, 2), "core": 2}
MAPS = ("entropy", "mutual_information", "variance")


@pytest.fixture
def folders(make_model_folder: Callable[..., Path]) -> list[Path]:
    """Two models of two folds each, which differ in configuration."""
    return [
        make_model_folder("flat", folds=(0, 1), logit_scale=5.0),
        make_model_folder("deep", configuration="3d_fullres", mirror_axes=(0, 1, 2), folds=(0, 1), logit_scale=5.0),
    ]


@pytest.fixture
def region_folders(make_model_folder: Callable[..., Path]) -> list[Path]:
    return [
        make_model_folder(name, folds=(0,), labels=REGIONS, regions_class_order=[1, 2], seeds=[seed], logit_scale=5.0)
        for name, seed in (("first", 3), ("second", 4))
    ]


@pytest.fixture
def predicted(make_image: Callable[..., Path], tmp_path: Path) -> Callable[..., CasePrediction]:
    """One case with everything that is computed."""
    images = make_image(tmp_path / "images")

    def predict(engine: EnsembleEngine) -> CasePrediction:
        (case,) = engine.predict_from_files(images, None, maps=MAPS, save_probabilities=True).predictions
        return case

    return predict


def opened(folders: Sequence[Path], **fields: Any) -> EnsembleEngine:
    return EnsembleEngine.from_model_folders(
        folders, EnsembleOptions(device="cpu", allow_tqdm=False, tta="none"), **fields
    )


def weights_for(engine: EnsembleEngine, *rows: Sequence[float]) -> EnsembleWeights:
    """Weights for these models, one row per class or region."""
    regions = engine.models[0].labels.has_regions
    return EnsembleWeights(
        models=tuple(model.folder.name for model in engine.models),
        outputs=tuple(engine.structures) if regions else ("background", *engine.structures),
        regions=regions,
        values=tuple(map(tuple, rows)),
        method="learned",
        settings=engine.settings,
        fitted_on={
            "members": [
                {"model": model.folder.name, "name": member.name, "sha256": member.sha256}
                for model in engine.models
                for member in model.members
            ]
        },
        figures={},
    )


def saved(weights: EnsembleWeights, tmp_path: Path) -> Path:
    weights.save(tmp_path / "weights.json")
    return tmp_path / "weights.json"


# --- what it predicts ---


def test_equal_weights_are_no_weights(folders, predicted, tmp_path):
    plain = opened(folders)
    file = saved(weights_for(plain, *[(0.5, 0.5)] * 3), tmp_path)
    expected, found = predicted(plain), predicted(opened(folders, class_weights=file))
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
    np.testing.assert_array_equal(found.segmentation, expected.segmentation)
    for name in MAPS:
        np.testing.assert_allclose(found.maps[name], expected.maps[name], atol=1e-6)


def test_held_members_are_weighted_the_same(make_model_folder, predicted, tmp_path):
    folders = [
        make_model_folder(name, configuration="3d_fullres", folds=(0, 1), seeds=seeds, logit_scale=5.0)
        for name, seeds in (("one", [3, 4]), ("other", [5, 6]))
    ]
    file = saved(weights_for(opened(folders), (0.2, 0.8), (0.9, 0.1), (0.3, 0.7)), tmp_path)
    plain, held = opened(folders, class_weights=file), opened(folders, class_weights=file)
    held.memory = SimpleNamespace(plan=lambda *_: MemoryPlan(held=True))  # type: ignore[assignment]
    expected, found = predicted(plain), predicted(held)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    for name in MAPS:
        np.testing.assert_array_equal(found.maps[name], expected.maps[name])


def test_classes_are_weighted_and_renormalised(folders, predicted, tmp_path):
    """Against the definition, from the probabilities of each model alone."""
    rows = np.array([(0.5, 0.5), (0.9, 0.1), (0.3, 0.7)])
    file = saved(weights_for(opened(folders), *rows), tmp_path)
    models = np.stack([predicted(opened([folder])).probabilities for folder in folders])
    weighted = np.einsum("ck,kc...->c...", rows, models)
    found = predicted(opened(folders, class_weights=file))
    expected = weighted / weighted.sum(axis=0)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert np.abs(models.mean(axis=0) - expected).max() > 0.05  # the weights matter here
    np.testing.assert_array_equal(found.segmentation > 0, expected.argmax(axis=0) > 0)
    assert found.row["members"] == 4


def test_regions_are_weighted_each_by_itself(region_folders, predicted, tmp_path):
    rows = np.array([(0.9, 0.1), (0.2, 0.8)])
    file = saved(weights_for(opened(region_folders), *rows), tmp_path)
    models = np.stack([predicted(opened([folder])).probabilities for folder in region_folders])
    found = predicted(opened(region_folders, class_weights=file))
    expected = np.einsum("ck,kc...->c...", rows, models)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert np.abs(models.mean(axis=0) - expected).max() > 0.05


def test_a_model_without_weight_for_any_class_says_nothing(folders, predicted, tmp_path):
    file = saved(weights_for(opened(folders), *[(1.0, 0.0)] * 3), tmp_path)
    alone, found = predicted(opened(folders[:1])), predicted(opened(folders, class_weights=file))
    np.testing.assert_allclose(found.probabilities, alone.probabilities, atol=1e-4)


def test_a_single_model_has_the_weight_1(folders, predicted, tmp_path):
    plain = opened(folders[:1])
    file = saved(weights_for(plain, *[(1.0,)] * 3), tmp_path)
    expected, found = predicted(plain), predicted(opened(folders[:1], class_weights=file))
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)


# --- what it refuses ---


def test_averaged_logits_early_exit_and_numbers_are_refused(tmp_path):
    for fields in ({"average": "logits"}, {"early_exit": "label"}, {"model_weights": [1, 2]},
                   {"tta": "full", "tta_members": True}):  # fmt: skip
        with pytest.raises(ValueError, match="Class-wise weights are weights of averaged probabilities"):
            EnsembleOptions(class_weights=tmp_path / "weights.json", **fields)


def test_models_in_another_order_are_refused(folders, tmp_path):
    file = saved(weights_for(opened(folders), *[(0.5, 0.5)] * 3), tmp_path)
    with pytest.raises(EnsembleWeightsError, match="in this order: flat, deep; found deep, flat"):
        opened(folders[::-1], class_weights=file)


def test_other_settings_are_refused(folders, tmp_path):
    file = saved(weights_for(opened(folders), *[(0.5, 0.5)] * 3), tmp_path)
    with pytest.raises(EnsembleWeightsError, match=r"its step_size is 0.5, this ensemble's is 0.25"):
        opened(folders, class_weights=file, tile_step_size=0.25)


def test_a_retrained_member_is_refused(folders, write_checkpoint, tmp_path):
    file = saved(weights_for(opened(folders), *[(0.5, 0.5)] * 3), tmp_path)
    write_checkpoint(folders[0], 1, seed=7)
    with pytest.raises(EnsembleWeightsError, match="flat/fold_1/checkpoint_final is another file now"):
        opened(folders, class_weights=file)


# --- what it records ---


def test_weights_are_a_setting_of_the_ensemble_and_recorded(folders, make_image, tmp_path):
    """So a calibration of the plain ensemble, or its output folder, is refused for the weighted one."""
    plain = opened(folders)
    weights = weights_for(plain, *[(0.5, 0.5)] * 3)
    weighted = opened(folders, class_weights=saved(weights, tmp_path))
    assert "class_weights" not in plain.settings
    assert weighted.settings == plain.settings | {"class_weights": weights.sha256}
    weighted.predict_from_files(make_image(tmp_path / "images"), tmp_path / "out")
    record = json.loads((tmp_path / "out" / "predict_args.json").read_text())
    assert record["ensemble"]["class_weights"] == weights.sha256
    other = opened(folders, class_weights=saved(replace(weights, method="best"), tmp_path))
    with pytest.raises(ValueError, match="class_weights: found"):
        other.predict_from_files(tmp_path / "images", tmp_path / "out", continue_prediction=True)
