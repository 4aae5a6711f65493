"""The way of a user on real data: stock planning, stock training, both predictors.

Only where NNUNET_EXT_REAL_DATA names a folder with Dataset027_ACDC and Dataset004_Hippocampus (raw nnU-Net datasets).
A few iterations show that everything runs on such files; they do not make a good network.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tiny_datasets import PLANS

REAL_DATA = os.environ.get("NNUNET_EXT_REAL_DATA", "")
TRAINER = "nnUNetTrainerCyclical2_4epochs_3iters"
TRAINING_CASES = 6
MAPS = ["entropy", "mutual_information"]

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not REAL_DATA, reason="NNUNET_EXT_REAL_DATA does not name a folder with the real datasets"),
]


def copy_cases(source, raw_folder):
    """A raw dataset with the first cases for training and the next one in imagesTs."""
    description = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    ending = description["file_ending"]
    raw = Path(raw_folder) / source.name
    cases = sorted(path.name.removesuffix(ending) for path in (source / "labelsTr").iterdir())
    for position, case in enumerate(cases[: TRAINING_CASES + 1]):
        part = "Tr" if position < TRAINING_CASES else "Ts"
        for folder, name in ((f"images{part}", f"{case}_0000{ending}"), (f"labels{part}", f"{case}{ending}")):
            (raw / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(source / folder.replace("Ts", "Tr") / name, raw / folder / name)
    (raw / "dataset.json").write_text(json.dumps(description | {"numTraining": TRAINING_CASES}), encoding="utf-8")
    return raw


@pytest.fixture(scope="module", params=["Dataset027_ACDC 2d", "Dataset004_Hippocampus 3d_fullres"])
def real(request, variables, run_command, tiny_dataset):
    """A few cases of a real dataset, planned, and the configuration to train."""
    name, configuration = request.param.split()
    raw = copy_cases(Path(REAL_DATA) / name, variables["nnUNet_raw"])
    run_command(
        *("nnUNetv2_plan_and_preprocess", "-d", raw.name[7:10], "-c", configuration, "-np", 1, "-npfp", 1),
        *("--no_pbar", "-gpu_memory_target", 1, "-overwrite_plans_name", PLANS),
        nnUNet_n_proc_DA="1",  # planning divides by it
    )
    return tiny_dataset(raw, patch_size_2d=(128, 128)), configuration


def test_from_raw_data_to_uncertainty(real, run_command, env_line, tmp_path):
    dataset, configuration = real
    model = ["-tr", TRAINER, "-p", dataset.plans]
    run_command("nnUNetv2_train", dataset.number, configuration, 0, *model, "-device", "cpu", **env_line)
    folder = dataset.model(TRAINER, configuration)
    written = {path.name for path in (folder / "fold_0").glob("*.pth")}
    assert written >= {"checkpoint_final.pth", "checkpoint_posterior.pth", "checkpoint_swa.pth"}
    assert (folder / "fold_0" / "validation" / "summary.json").is_file()

    for checkpoint in ("checkpoint_final.pth", "checkpoint_posterior.pth"):
        run_command(
            *("nnUNetv2_predict", "-i", dataset.images, "-o", tmp_path / checkpoint, "-d", dataset.number),
            *("-c", configuration, *model, "-f", 0, "-chk", checkpoint),
            *("-device", "cpu", "-npp", 0, "-nps", 0),
            **env_line,
        )
    run_command(
        *("nnunet_ext", "predict", "-i", dataset.images, "-o", tmp_path / "samples", "-m", folder),
        *("--members", "samples", "--maps", *MAPS, "-device", "cpu"),
    )

    [image_file] = dataset.images.iterdir()
    image = nibabel.load(image_file)
    case_file = image_file.name.replace("_0000", "")
    for output in ("checkpoint_final.pth", "checkpoint_posterior.pth", "samples"):
        assert nibabel.load(tmp_path / output / case_file).shape == image.shape
    found = {map_name: nibabel.load(tmp_path / "samples" / "maps" / map_name / case_file) for map_name in MAPS}
    for uncertainty in found.values():
        assert uncertainty.shape == image.shape
        np.testing.assert_allclose(uncertainty.affine, image.affine, atol=1e-4)
    entropy, information = (found[map_name].get_fdata() for map_name in MAPS)
    assert 0 <= entropy.min() < entropy.max() <= 1
    assert information.min() >= 0
    assert np.all(information <= entropy)


def test_a_distilled_model_predicts_under_stock_with_this_package_and_its_copy_without(
    real, run_command, env_line, tmp_path, agreement
):
    dataset, configuration = real
    trainer = "nnUNetTrainerDSD_2epochs_3iters"
    common = ["-d", dataset.number, "-c", configuration, "-p", dataset.plans, "-f", 0]
    quick = ["-i", dataset.images, "-device", "cpu", "-npp", 0, "-nps", 0]
    run_command(
        *("nnUNetv2_train", dataset.number, configuration, 0, "-tr", trainer, "-p", dataset.plans, "-device", "cpu"),
        **env_line,
    )
    run_command("nnUNetv2_predict", *common, *quick, "-tr", trainer, "-o", tmp_path / "with", **env_line)
    run_command("nnunet_ext", "export", *common, "-tr", trainer, "-o", tmp_path / "plain")
    run_command(
        *("nnUNetv2_predict", *common, *quick, "-o", tmp_path / "without"), nnUNet_results=str(tmp_path / "plain")
    )
    assert agreement(tmp_path / "with", tmp_path / "without") == 1


def test_a_mixture_trains_and_predicts_with_both_programs(real, run_command, env_line, tmp_path, agreement):
    dataset, configuration = real
    trainer = "nnUNetTrainerStreaming_1epochs_3iters"
    model = ["-d", dataset.number, "-c", configuration, "-p", dataset.plans, "-tr", trainer, "-f", 0]
    images = ["-i", dataset.images, "-device", "cpu", "-npp", 0, "-nps", 0]
    run_command(
        *("nnUNetv2_train", dataset.number, configuration, 0, "-tr", trainer, "-p", dataset.plans, "-device", "cpu"),
        **env_line,
    )
    run_command("nnUNetv2_predict", *model, *images, "-o", tmp_path / "stock", **env_line)
    run_command("nnunet_ext", "predict", *model, *images, "-o", tmp_path / "volume")
    assert agreement(tmp_path / "stock", tmp_path / "volume") > 0.5  # another memory, and a network that knows little


@pytest.mark.parametrize(
    "part",
    [
        *("Boundary", "HausdorffDT", "HausdorffErosion", "HausdorffConv", "ClDice", "SkeletonRecall", "Euler", "ACE"),
        *("RegionFocal", "Focal", "AdvChain"),
    ],
)
def test_a_loss_or_augmentation_trains_two_epochs_and_predicts_with_stock(
    part, real, run_command, env_line, tmp_path
):
    dataset, configuration = real
    trainer = f"nnUNetTrainer{part}_2epochs_3iters"
    model = ["-d", dataset.number, "-c", configuration, "-p", dataset.plans, "-tr", trainer, "-f", 0]
    run_command(
        *("nnUNetv2_train", dataset.number, configuration, 0, "-tr", trainer, "-p", dataset.plans, "-device", "cpu"),
        **env_line,
    )
    images = ["-i", dataset.images, "-o", tmp_path, "-device", "cpu", "-npp", 0, "-nps", 0]
    run_command("nnUNetv2_predict", *model, *images, **env_line)
    assert (dataset.model(trainer, configuration) / "fold_0" / "progress.png").is_file()
    assert list(tmp_path.glob("*.nii.gz"))
