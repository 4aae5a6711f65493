"""Networks in int8: what they cost in Dice is measured on cases that they were not trained on."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.deployment import stand_alone
from nnunet_ext.deployment.deploy import deploy_model
from nnunet_ext.deployment.int8 import Int8Cases, LabelledCase, dice_of, int8_loss
from nnunet_ext.options import DeployOptions

needs_nncf = pytest.mark.skipif(
    find_spec("nncf") is None or find_spec("openvino") is None,
    reason="nncf or openvino is not installed: pip install 'nnunet-ext[int8]'",
)
FACTS = {"labels": {"background": 0, "left": 1, "right": 2}}


def write_labels(file, *values):
    sitk.WriteImage(sitk.GetImageFromArray(np.array(values, np.uint8).reshape(1, 1, -1)), str(file))
    return file


def labels_like(image, file):
    """A label map of an image, all of it the structure 1."""
    found = sitk.ReadImage(str(image))
    labels = sitk.GetImageFromArray(np.ones(found.GetSize()[::-1], np.uint8))
    labels.CopyInformation(found)
    sitk.WriteImage(labels, str(file))
    return file


def test_the_dice_is_the_mean_over_structures_that_are_there(tmp_path):
    truth = write_labels(tmp_path / "truth.nii.gz", 0, 1, 1, 0)
    prediction = np.array([0, 1, 0, 0]).reshape(1, 1, -1)
    assert dice_of(prediction, truth, FACTS) == pytest.approx(2 / 3)  # left: 2 * 1 / (2 + 1); right is absent
    assert np.isnan(dice_of(np.zeros((1, 1, 4), int), write_labels(tmp_path / "e.nii.gz", 0, 0, 0, 0), FACTS))


def test_ignored_voxels_do_not_count(tmp_path):
    facts = {"labels": {**FACTS["labels"], "ignore": 3}}
    truth = write_labels(tmp_path / "truth.nii.gz", 1, 3, 3, 0)
    assert dice_of(np.array([1, 1, 2, 0]).reshape(1, 1, -1), truth, facts) == 1


@pytest.mark.parametrize("settings", [{"format": "onnx"}, {"format": "openvino", "precision": "fp16"}])
def test_int8_is_for_openvino_from_fp32(tmp_path, settings):
    with pytest.raises(ValueError, match=r"--format openvino"):
        DeployOptions(tmp_path, int8=True, **settings)


def test_the_loss_compares_two_networks_on_the_same_cases(make_model_folder, make_image, tmp_path):
    images = make_image(tmp_path / "images")
    deployed = deploy_model(make_model_folder(), DeployOptions(tmp_path / "out", "torchscript", images=images))
    facts = json.loads((deployed.folder / "model.json").read_text(encoding="utf-8"))
    network = stand_alone.open_network(deployed.folder / "network_0.pt")
    image = images / "case_0000.nii.gz"
    case = LabelledCase("case", (image,), labels_like(image, tmp_path / "label.nii.gz"))
    loss = int8_loss(network, lambda patches: 0 * network(patches), [case], facts, tmp_path)
    assert loss.cases == 1
    assert 0 < loss.dice_fp32 < 1
    assert loss.dice_int8 == 0  # all logits are equal: background, the first class
    assert not (tmp_path / "segmentation.nii.gz").exists()


@needs_nncf
def test_an_int8_network_is_written_with_what_it_costs(make_model_folder, make_image, tmp_path):
    images = make_image(tmp_path / "images")
    image = images / "case_0000.nii.gz"
    case = LabelledCase("case", (image,), labels_like(image, tmp_path / "label.nii.gz"))
    asked = []

    def cases_of(fold):
        asked.append(fold)
        return Int8Cases([case], [case])

    folder = make_model_folder(logit_scale=5.0)
    options = DeployOptions(tmp_path / "out", "openvino", images=images, int8=True)
    deployed = deploy_model(folder, options, cases_of)
    assert asked == ["fold_0"]
    (loss,) = deployed.losses
    assert loss.dice_int8 == pytest.approx(loss.dice_fp32, abs=0.2)
    assert "FakeQuantize" in (deployed.folder / "network_0.xml").read_text(encoding="utf-8")
    facts = json.loads((deployed.folder / "model.json").read_text(encoding="utf-8"))
    assert facts["precision"] == "int8"
    assert facts["networks"][0]["int8"]["cases"] == 1
