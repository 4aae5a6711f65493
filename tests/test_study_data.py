"""The data of benchmarks/study: which cases it takes, and how it cuts and labels them."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from study import data
from study.settings import ImageSet, Preset

PRESET = Preset("Dataset001_A", "2d", "(p[0-9])_", 4, 5, "2epochs_1iters", (0, 1), {}, ())


def test_data_of_other_settings_is_refused(tmp_path):
    data.require_same(tmp_path / "study.json", {"crop": (2, 8)})
    data.require_same(tmp_path / "study.json", {"crop": (2, 8)})
    with pytest.raises(ValueError, match="Use another WORK"):
        data.require_same(tmp_path / "study.json", {"crop": ()})


def test_the_validation_cases_of_a_fold_can_be_a_test_set(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    (tmp_path / "Dataset001_A").mkdir()
    splits = [{"train": ["p2_ed"], "val": ["p1_es", "p1_ed"]}, {"train": ["p1_ed", "p1_es"], "val": ["p2_ed"]}]
    (tmp_path / "Dataset001_A" / "splits_final.json").write_text(json.dumps(splits))
    assert data.cases_of(PRESET, ImageSet("validation", fold=0), tmp_path) == ["p1_ed", "p1_es"]


def test_a_crop_keeps_the_middle_and_its_place_in_space(tmp_path):
    values = np.arange(6 * 4 * 2).reshape(6, 4, 2).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 1.0, 5.0, 1.0])), tmp_path / "a.nii.gz")
    found = nibabel.load(data.cropped([tmp_path / "a.nii.gz"], tmp_path / "cropped", (2, 8)) / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), values[2:4])
    np.testing.assert_array_equal(found.affine[:3, 3], [4, 0, 0])


def test_regions_are_listed_with_the_labels_of_their_voxels(tmp_path):
    source = tmp_path / "Dataset001_A"
    (source / "labelsTr").mkdir(parents=True)
    (source / "imagesTr").mkdir()
    for path in (source / "labelsTr" / "p1_ed.nii.gz", source / "imagesTr" / "p1_ed_0000.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), path)
    (source / "dataset.json").write_text('{"labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"}')
    data.write_raw_dataset(source, tmp_path / "raw", ["p1_ed"], (), regions={"all": [1, 2], "inner": [2]})
    written = json.loads((tmp_path / "raw" / "dataset.json").read_text())
    assert written["labels"] == {"background": 0, "all": [1, 2], "inner": [2]}
    assert written["regions_class_order"] == [1, 2]
