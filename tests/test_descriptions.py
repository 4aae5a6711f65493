"""Descriptions of datasets and models that people have, and the message for each."""

from __future__ import annotations

import json

import pytest

from nnunet_ext.descriptions import OF_DATASET, read_description

VERSION_2 = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
VERSION_1 = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "organ"}, "numTraining": 1}


def described(tmp_path, content):
    file = tmp_path / "dataset.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_a_whole_description_is_read(tmp_path):
    assert read_description(described(tmp_path, VERSION_2), OF_DATASET) == VERSION_2


def test_the_old_name_of_the_channels_is_enough(tmp_path):
    content = {"modality": {"0": "CT"}, "labels": {}, "file_ending": ".nii.gz"}
    assert read_description(described(tmp_path, content), OF_DATASET) == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            VERSION_1,
            r"must have file_ending; .*has modality, labels, numTraining\. It looks like a file of nnU-Net v1",
        ),
        ({"labels": {}}, r"must have channel_names and file_ending; .*has labels\. Add what is missing"),
        ({}, "has nothing"),
        ('{"labels": ', r"dataset\.json must be JSON; it is damaged"),
        ("[]", "must be a JSON object; found list"),
    ],
)
def test_another_file_is_refused_by_name(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_description(described(tmp_path, content), OF_DATASET)
