"""Steps one after the other, and the file that holds them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from drawn import case, drawing

from nnunet_ext.postprocessing.chain import PostProcessing, dataset_of
from nnunet_ext.postprocessing.fill_holes import FillHoles
from nnunet_ext.postprocessing.hysteresis import Hysteresis
from nnunet_ext.postprocessing.largest_component import LargestComponent
from nnunet_ext.postprocessing.step import PostProcessingError

DATASET = {"labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
FILL, LARGEST = FillHoles("organ", (1,), 1), LargestComponent("organ", (1,))
CHAIN = PostProcessing((FILL, LARGEST), dataset_of(DATASET), {"members": "final"}, {"folds": ["0"]}, {"dice": 0.5})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    CHAIN.save(tmp_path / "postprocess.json")
    return tmp_path / "postprocess.json"


def test_steps_follow_each_other():
    """The ring becomes 9 voxels, more than the 8 beside it; without the first step both have 8 and stay."""
    before = case("111.1111", "1.1.1111", "111.....")
    assert drawing(LARGEST(before)) == ["111.1111", "1.1.1111", "111....."]
    assert drawing(CHAIN.apply(before)) == ["111.....", "111.....", "111....."]


def test_no_step_changes_nothing():
    assert drawing(PostProcessing(()).apply(case("1.1"))) == ["1.1"]


def test_what_is_saved_is_read_again(file):
    assert PostProcessing.load(file) == CHAIN


def test_the_hash_is_of_what_is_applied(file):
    assert PostProcessing.load(file).sha256 == CHAIN.sha256 == replace(CHAIN, report={}, fitted_on={}).sha256
    assert replace(CHAIN, steps=(LARGEST, FILL)).sha256 != CHAIN.sha256


def test_probabilities_are_asked_for_only_if_a_step_needs_them():
    assert not CHAIN.needs_probabilities
    assert replace(CHAIN, steps=(Hysteresis("organ", (1,), 1, 0, 1, 0.8),)).needs_probabilities


def test_a_model_with_other_labels_is_refused():
    CHAIN.require_labels(DATASET)
    with pytest.raises(PostProcessingError, match="belongs to the labels that it was chosen for"):
        CHAIN.require_labels({"labels": {"background": 0, "organ": 1, "lesion": 2}})
    with pytest.raises(PostProcessingError, match=r"the labels \[1\] of this model; a step for b also names \[2\]"):
        PostProcessing((LargestComponent("b", (1, 2)),)).require_labels(DATASET)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(PostProcessingError, match=r"does not exist\. Run nnunet_ext postprocess"):
        PostProcessing.load(tmp_path / "postprocess.json")


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"steps": None}, {"steps": [1]}, {"steps": [{"operation": "erode"}]}, {"dataset": 1}]
)
def test_a_damaged_file_is_refused(change, file):
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(PostProcessingError, match="is not post-processing, or is damaged"):
        PostProcessing.load(file)
