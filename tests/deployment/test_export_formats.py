"""Exported networks give torch's probabilities, and the program beside them gives stock nnU-Net's segmentation."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import nibabel
import numpy as np
import pytest

from nnunet_ext.cli import main
from nnunet_ext.deployment import stand_alone
from nnunet_ext.deployment.deploy import deploy_model
from nnunet_ext.deployment.formats import FORMATS
from nnunet_ext.deployment.refusal import DeploymentError
from nnunet_ext.machine.extras import ExtraMissingError, imported
from nnunet_ext.options import DeployOptions, PlainCopyOptions

REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def installed(name):
    """The format, or a reason to skip it."""
    missing = [package for package in FORMATS[name].packages if find_spec(package) is None]
    reason = f"{', '.join(missing)} not installed: pip install 'nnunet-ext[{name}]'"
    return pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=reason))


EVERY_FORMAT = pytest.mark.parametrize("name", [installed(name) for name in FORMATS])


def labels_in(file):
    return np.asarray(nibabel.load(file).dataobj)


def segmented_alone(folder, images, channels, output):
    """What the exported program writes."""
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    networks = [stand_alone.open_network(folder / network["file"]) for network in model["networks"]]
    files = [str(images / f"case_{channel:04d}.nii.gz") for channel in range(channels)]
    stand_alone.predict_file(files, str(output), model, networks)
    return labels_in(output)


def segmented_by_stock(predictor, images, output):
    output.mkdir()
    predictor.predict_from_files_sequential(str(images), str(output))
    return labels_in(output / "case.nii.gz")


# --- every format, against torch ---


@EVERY_FORMAT
def test_a_network_gives_the_probabilities_of_torch(make_model_folder, make_image, tmp_path, name):
    images = make_image(tmp_path / "images")
    (check,) = deploy_model(make_model_folder(), DeployOptions(tmp_path / "out", name, images=images)).checks
    assert check.largest_difference <= 1e-4
    assert check.patches == 4  # two of noise, and two of the image


@EVERY_FORMAT
def test_the_program_beside_it_segments_as_stock_does(make_model_folder, make_image, stock_predictor, tmp_path, name):
    folder = make_model_folder(configuration="3d_fullres", mirror_axes=(0, 1, 2))
    images = make_image(tmp_path / "images")
    deployed = deploy_model(folder, DeployOptions(tmp_path / "out", name, images=images))
    ours = segmented_alone(deployed.folder, images, 1, tmp_path / "ours.nii.gz")
    stock = segmented_by_stock(stock_predictor(folder, exact=True), images, tmp_path / "stock")
    assert len(np.unique(ours)) == 3
    assert (ours == stock).mean() > 0.999


@EVERY_FORMAT
def test_a_network_in_half_precision_is_close_to_torch(make_model_folder, make_image, tmp_path, name):
    folder = make_model_folder(logit_scale=1.0)
    options = DeployOptions(tmp_path / "out", name, precision="fp16", images=make_image(tmp_path / "images"))
    (check,) = deploy_model(folder, options).checks
    assert check.largest_difference < 0.01
    assert check.half_overflow is None


# --- the program, for every kind of model ---


@pytest.mark.parametrize(
    ("settings", "image"),
    [
        ({"channels": 2}, {"channels": 2}),
        ({"labels": REGIONS, "regions_class_order": [1, 2]}, {}),
        ({"configuration": "3d_fullres", "transpose_forward": (1, 0, 2)}, {}),
        ({"configuration": "3d_fullres", "spacing_mm": (3.0, 0.8, 1.2)}, {}),  # slices far apart in the image
        ({"configuration": "3d_fullres", "spacing_mm": (1.5, 1.5, 1.5)}, {"spacing_xyz": (1.0, 1.0, 2.0)}),
        ({"mirror_axes": None}, {"shape_zyx": (3, 9, 40)}),  # smaller than the patch along one axis
    ],
    ids=["two channels", "regions", "transposed", "anisotropic", "isotropic", "small"],
)
def test_the_program_segments_as_stock_does(
    make_model_folder, make_image, stock_predictor, tmp_path, settings, image
):
    folder = make_model_folder(**settings)
    images = make_image(tmp_path / "images", **image)
    deployed = deploy_model(folder, DeployOptions(tmp_path / "out", "torchscript", images=images))
    ours = segmented_alone(deployed.folder, images, settings.get("channels", 1), tmp_path / "ours.nii.gz")
    stock = segmented_by_stock(stock_predictor(folder, exact=True), images, tmp_path / "stock")
    assert (ours == stock).mean() > 0.999


def test_the_program_runs_without_nnunet_and_keeps_the_geometry(make_model_folder, make_image, tmp_path):
    images = make_image(tmp_path / "images")
    image, output = images / "case_0000.nii.gz", tmp_path / "ours.nii.gz"
    deployed = deploy_model(make_model_folder(), DeployOptions(tmp_path / "out", "torchscript", images=images))
    program = (
        "import sys, runpy; sys.modules['nnunetv2'] = sys.modules['nnunet_ext'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    flags = [str(deployed.folder / "predict.py"), str(image), "-o", str(output), "--no-flips"]
    subprocess.run([sys.executable, "-c", program, *flags], check=True)
    assert np.allclose(nibabel.load(output).affine, nibabel.load(image).affine)
    assert labels_in(output).shape == labels_in(image).shape


# --- what lies in the folder ---


def test_the_folder_holds_networks_facts_and_a_program(make_model_folder, tmp_path):
    folder = make_model_folder(folds=(0, 1))
    deployed = deploy_model(folder, DeployOptions(tmp_path / "out", "torchscript"))
    assert deployed.folder == tmp_path / "out" / "Dataset998_Tiny" / folder.name
    names = ["model.json", "network_0.pt", "network_1.pt", "predict.py"]
    assert sorted(path.name for path in deployed.folder.iterdir()) == names
    facts = json.loads((deployed.folder / "model.json").read_text(encoding="utf-8"))
    assert facts["spacing_mm"] == [1.0, 1.0]
    assert facts["patch_size"] == [16, 16]
    assert facts["labels"] == {"background": 0, "left": 1, "right": 2}
    assert facts["normalisation"] == [{"scheme": "ZScoreNormalization", "use_mask_for_norm": False}]
    assert [network["member"] for network in facts["networks"]] == [
        "fold_0/checkpoint_final",
        "fold_1/checkpoint_final",
    ]


def test_an_existing_folder_is_not_overwritten(make_model_folder, tmp_path):
    folder, options = make_model_folder(), DeployOptions(tmp_path / "out", "torchscript")
    deploy_model(folder, options)
    with pytest.raises(DeploymentError, match=r"new folder; .* exists"):
        deploy_model(folder, options)


# --- refusals ---


def test_half_precision_is_refused_with_the_layer_that_overflows(make_model_folder, write_checkpoint, tmp_path):
    def enlarge(checkpoint):
        for name, tensor in checkpoint["network_weights"].items():
            if name.startswith("decoder.seg_layers.1"):  # the last one: logits of a million
                tensor.mul_(1e6)

    folder = make_model_folder(folds=())
    write_checkpoint(folder, 0, edit=enlarge)
    with pytest.raises(DeploymentError, match=r"decoder\.seg_layers\.1.* becomes infinite.*--precision fp32"):
        deploy_model(folder, DeployOptions(tmp_path / "half", "torchscript", precision="fp16"))
    assert not list((tmp_path / "half").rglob("*.pt"))
    (check,) = deploy_model(folder, DeployOptions(tmp_path / "single", "torchscript")).checks
    assert check.half_overflow.startswith("decoder.seg_layers.1")


def test_the_second_stage_of_a_cascade_is_refused(make_model_folder, tmp_path):
    folder = make_model_folder("nnUNetTrainer__nnUNetPlans__3d", configuration="3d_cascade_fullres")
    with pytest.raises(DeploymentError, match=r"second stage of a cascade\. Export 3d_fullres"):
        deploy_model(folder, DeployOptions(tmp_path / "out", "torchscript"))


def test_a_missing_package_is_named_with_what_installs_it():
    with pytest.raises(ExtraMissingError, match=r"needs the package no_such_package.*nnunet-ext\[onnx\]"):
        imported("no_such_package", extra="onnx", needed_by="--format onnx")


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"onnx"):
        DeployOptions(tmp_path, "tflite")


# --- the command ---


def test_the_command_prints_the_folder_and_how_far_it_is_from_torch(make_model_folder, tmp_path, capsys):
    folder, out = make_model_folder(), tmp_path / "out"
    assert main(["export", "-m", str(folder), "-o", str(out), "--format", "torchscript"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(out / "Dataset998_Tiny" / folder.name)
    assert printed[1].strip().startswith("network_0: probabilities within 0.0e+00 of torch on 2 patches")


@pytest.mark.parametrize(
    "flags", [["--precision", "fp16"], ["--format", "torchscript", "--classifier", "0"]], ids=["no format", "mixture"]
)
def test_flags_that_contradict_each_other_are_refused(make_model_folder, tmp_path, capsys, flags):
    assert main(["export", "-m", str(make_model_folder()), "-o", str(tmp_path / "out"), *flags]) == 1
    assert "--format" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_format_a_plain_copy_is_made(make_model_folder, tmp_path, capsys):
    assert main(["export", "-m", str(make_model_folder()), "-o", str(PlainCopyOptions(tmp_path / "p").results)]) == 0
    assert capsys.readouterr().out.strip().endswith("nnUNetTrainer__nnUNetPlans__2d")
