"""The file of ensemble weights: written, read, and refused for another ensemble."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nnunet_ext.calibration.ensemble_weights import LEAST_WEIGHT, EnsembleWeights, EnsembleWeightsError

WEIGHTS = EnsembleWeights(
    models=("2d", "3d"),
    outputs=("background", "organ"),
    regions=False,
    values=((0.5, 0.5), (1.0, 0.0)),
    method="learned",
    settings={"members": "final"},
    fitted_on={"members": [{"model": "2d", "name": "fold_0/checkpoint_final", "sha256": "a"}]},
    figures={"gain": {"mean": {"low": float("nan")}}},
)


def test_a_file_comes_back_as_it_was(tmp_path):
    file = tmp_path / "weights.json"
    WEIGHTS.save(file)
    found = EnsembleWeights.load(file)
    assert replace(found, figures={}) == replace(WEIGHTS, figures={})
    assert found.sha256 == WEIGHTS.sha256
    assert json.loads(file.read_text())["weights"] == {"background": [0.5, 0.5], "organ": [1.0, 0.0]}


def test_no_model_loses_a_class_altogether():
    assert WEIGHTS.by_model() == [(0.5, 1.0), (0.5, LEAST_WEIGHT)]


def test_what_was_fitted_is_accepted():
    WEIGHTS.require_models(["2d", "3d"])
    WEIGHTS.require_outputs(["background", "organ"])
    WEIGHTS.require_settings({"members": "final", "models": ["2d", "3d"], "postprocess": "x"})
    WEIGHTS.require_members([("2d", "fold_0/checkpoint_final", "a"), ("3d", "fold_0/checkpoint_final", "b")])


@pytest.mark.parametrize("models", [["3d", "2d"], ["2d"], ["2d", "3d", "third"]])
def test_other_models_are_refused(models):
    with pytest.raises(EnsembleWeightsError, match=r"in this order: 2d, 3d; found .* Give these folders with -m"):
        WEIGHTS.require_models(models)


def test_other_classes_settings_and_files_are_refused():
    with pytest.raises(EnsembleWeightsError, match="background, organ; found organ"):
        WEIGHTS.require_outputs(["organ"])
    with pytest.raises(EnsembleWeightsError, match="its members is 'final', this ensemble's is 'best'"):
        WEIGHTS.require_settings({"members": "best"})
    with pytest.raises(EnsembleWeightsError, match="its tta is None, this ensemble's is 'full'"):
        WEIGHTS.require_settings({"members": "final", "tta": "full"})
    with pytest.raises(EnsembleWeightsError, match="2d/fold_0/checkpoint_final is another file now"):
        WEIGHTS.require_members([("2d", "fold_0/checkpoint_final", "b")])


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(EnsembleWeightsError, match=r"does not exist\. Run nnunet_ext weights"):
        EnsembleWeights.load(tmp_path / "weights.json")


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "calibration"},
        {"format": 2},
        {"weights": {"background": [0.5, 0.5]}},
        {"weights": {"background": [0.5, 0.5], "organ": [1.0]}},
        {"weights": {"background": [0.5, 0.5], "organ": [1.5, -0.5]}},
        {"weights": {"background": [0.5, 0.5], "organ": [0.5, 0.6]}},
        {"method": "guessed"},
        {"fitted_on": {}},
        {"models": None},
    ],
)
def test_a_damaged_file_is_refused(damage, tmp_path: Path):
    file = tmp_path / "weights.json"
    file.write_text(json.dumps(WEIGHTS.as_json() | damage))
    with pytest.raises(EnsembleWeightsError, match="or is damaged"):
        EnsembleWeights.load(file)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "weights.json").write_text("{")
    with pytest.raises(EnsembleWeightsError, match="or is damaged"):
        EnsembleWeights.load(tmp_path / "weights.json")
