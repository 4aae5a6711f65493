"""Channels, labels, names and splits of the dataset of an error model."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_ext.calibration.held_out_cases import TrainedOnError, held_out_cases
from nnunet_ext.error_maps.error_dataset import (
    NotAnErrorModelError,
    corrupted_name,
    error_dataset_json,
    error_labels,
    error_splits,
    foreground_labels,
    made_from,
    one_hot,
    require_plain_names,
    source_case,
    source_splits,
)

HEART = {
    "channel_names": {"0": "cineMRI"},
    "labels": {"background": 0, "RV": 1, "LV": 2},
    "file_ending": ".nii.gz",
}


def test_each_label_is_a_mask_of_its_own():
    masks = one_hot(np.array([0, 1, 2, 2]), [1, 2])
    assert [mask.tolist() for mask in masks] == [[0, 1, 0, 0], [0, 0, 1, 1]]


def test_errors_are_voxels_that_differ():
    segmentation, truth = np.array([0, 1, 2, 0]), np.array([0, 2, 2, 1])
    assert error_labels(segmentation, truth, None).tolist() == [0, 1, 0, 1]


def test_where_the_truth_is_ignored_so_are_errors():
    assert error_labels(np.array([0, 1, 1]), np.array([3, 3, 1]), 3).tolist() == [2, 2, 0]


def test_regions_have_the_labels_that_they_are_made_of():
    regions = {"labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}}
    assert foreground_labels(regions) == [1, 2]


def test_the_segmentation_is_not_normalised():
    found = error_dataset_json(HEART, {"a": {"images": [], "label": ""}}, {"dataset": "Dataset027_ACDC"})
    assert found["channel_names"] == {"0": "cineMRI", "1": "noNorm", "2": "noNorm"}
    assert found["labels"] == {"background": 0, "error": 1}
    assert found["numTraining"] == 1
    assert made_from(found, "a model") == {"dataset": "Dataset027_ACDC", "labels": [1, 2]}


def test_an_ignore_label_stays_one():
    found = error_dataset_json({**HEART, "labels": {**HEART["labels"], "ignore": 3}}, {}, {})
    assert found["labels"] == {"background": 0, "error": 1, "ignore": 2}


def test_another_model_is_refused():
    with pytest.raises(NotAnErrorModelError, match="a model"):
        made_from(HEART, "a model")


# --- names and splits ---


def test_a_corruption_is_of_its_case():
    assert source_case(corrupted_name("patient__1", "shift")) == "patient__1"
    assert source_case("patient__1") == "patient__1"
    with pytest.raises(ValueError, match="a__erosion"):
        require_plain_names(["b", "a__erosion"])


def test_corruptions_are_on_the_side_of_their_case():
    names = ["a", "a__shift", "b", "c", "c__erosion"]
    assert error_splits([["a"], ["b", "c"]], names) == [
        {"train": ["b", "c", "c__erosion"], "val": ["a", "a__shift"]},
        {"train": ["a", "a__shift"], "val": ["b", "c", "c__erosion"]},
    ]


def test_a_case_with_two_predictions_is_refused():
    with pytest.raises(ValueError, match="a is held out by several"):
        error_splits([["a"], ["a", "b"]], ["a", "b"])


def test_own_splits_pass_the_check_of_held_out_cases():
    splits = source_splits(error_splits([["a"], ["b"]], ["a", "a__shift", "b"]))
    assert held_out_cases(0, splits, []) == ["a"]


def test_a_planted_corruption_of_a_held_out_case_is_refused():
    planted = [{"train": ["b", "a__shift"], "val": ["a"]}]
    with pytest.raises(TrainedOnError, match="such as a"):
        held_out_cases(0, source_splits(planted), [])


def test_a_planted_corruption_of_a_held_out_patient_is_refused():
    planted = [{"train": ["p2_a", "p1_b__shift"], "val": ["p1_a"]}]
    with pytest.raises(TrainedOnError, match="p1_a of p1"):
        held_out_cases(0, source_splits(planted), [], "(.+)_")
