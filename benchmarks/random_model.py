"""Writes model folders with random weights and images of noise, to measure time and memory."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}


def write_model_folder(folder: Path, members: int, *, features: tuple[int, ...], patch: tuple[int, int]) -> int:
    """Writes `fold_0/checkpoint_c0_e<k>.pth` per member and returns the number of parameters of one network."""
    plans, dataset_json = random_plans(features, patch), random_dataset_json()
    write_descriptions(folder, plans, dataset_json)
    return [
        write_checkpoint(folder / "fold_0" / f"checkpoint_c0_e{index:04d}.pth", plans, dataset_json, seed=index)
        for index in range(members)
    ][-1]


def write_folds(
    folder: Path,
    folds: int,
    *,
    features: tuple[int, ...],
    patch: tuple[int, ...],
    classes: int = 4,
    spacing_mm: tuple[float, ...] | None = None,
) -> None:
    """Writes `fold_<k>/checkpoint_final.pth` for every fold, as a cross-validation does.

    Args:
        folder: the model folder.
        folds: number of folds.
        features: number of features of each stage.
        patch: patch size; two axes make it a `2d` configuration and three `3d_fullres`.
        classes: number of classes including background.
        spacing_mm: spacing of the network along (z, y, x) or (y, x); None is 1 mm.
    """
    labels = {"background": 0, **{f"structure_{label}": label for label in range(1, classes)}}
    plans, dataset_json = random_plans(features, patch), random_dataset_json() | {"labels": labels}
    if spacing_mm is not None:
        [configuration] = plans["configurations"].values()
        configuration["spacing"] = list(spacing_mm)
    write_descriptions(folder, plans, dataset_json)
    for fold in range(folds):
        write_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pth", plans, dataset_json, seed=fold)


def write_descriptions(folder: Path, plans: dict, dataset_json: dict) -> None:
    """Writes `plans.json` and `dataset.json` of a new model folder."""
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset_json))


def write_checkpoint(path: Path, plans: dict, dataset_json: dict, *, seed: int) -> int:
    """Writes a checkpoint of the planned network with random weights and returns its number of parameters."""
    [(name, configuration)] = plans["configurations"].items()
    features, axes = configuration["architecture"]["arch_kwargs"]["features_per_stage"], len(configuration["spacing"])
    stages = len(features)
    convolution = torch.nn.Conv2d if axes == 2 else torch.nn.Conv3d
    normalisation = torch.nn.InstanceNorm2d if axes == 2 else torch.nn.InstanceNorm3d
    torch.manual_seed(seed)
    network = PlainConvUNet(
        1, stages, features, convolution, 3, [1] + [2] * (stages - 1), 2, len(dataset_json["labels"]),
        [2] * (stages - 1), True, normalisation, {"eps": 1e-5, "affine": True}, None, None, torch.nn.LeakyReLU,
        {"inplace": True},
    )  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    torch.save(
        {
            "network_weights": network.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {
                "configuration": name,
                "plans": plans,
                "fold": int(path.parent.name.removeprefix("fold_")),
                "dataset_json": dataset_json,
            },
            "inference_allowed_mirroring_axes": tuple(range(axes)),
        },
        path,
    )
    return sum(parameter.numel() for parameter in network.parameters())


def write_images(
    folder: Path,
    *,
    cases: int,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float] = (8.0, 1.0, 1.0),
) -> None:
    """Writes images of noise; shape and spacing are along (z, y, x)."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    affine = np.diag([*spacing_mm[::-1], 1.0])  # (x, y, z)
    for index in range(cases):
        voxels = rng.normal(100, 20, shape).astype(np.float32)
        image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), affine)
        nibabel.save(image, folder / f"case_{index}_0000.nii.gz")


def random_dataset_json() -> dict:
    """The `dataset.json` of a dataset with one channel and three structures."""
    return {"channel_names": {"0": "MRI"}, "labels": LABELS, "numTraining": 1, "file_ending": ".nii.gz"}


def random_plans(features: tuple[int, ...], patch: tuple[int, ...], *, batch_size: int = 2) -> dict:
    """Plans of a plain U-Net with isotropic strides: `2d` for a patch with two axes, `3d_fullres` with three."""
    stages, axes = len(features), len(patch)
    configuration = "2d" if axes == 2 else "3d_fullres"
    resampling = "resample_data_or_seg_to_shape"
    linear = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": "Dataset990_Random",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [8.0, 1.0, 1.0],
        "original_median_shape_after_transp": [10, *patch][-3:],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
        "configurations": {
            configuration: {
                "data_identifier": f"nnUNetPlans_{configuration}",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": batch_size,
                "patch_size": list(patch),
                "median_image_size_in_voxels": list(patch),
                "spacing": [1.0] * axes,
                "normalization_schemes": ["ZScoreNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": resampling,
                "resampling_fn_data_kwargs": {**linear, "order": 3},
                "resampling_fn_seg": resampling,
                "resampling_fn_seg_kwargs": {**linear, "is_seg": True},
                "resampling_fn_probabilities": resampling,
                "resampling_fn_probabilities_kwargs": linear,
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": {
                        "n_stages": stages,
                        "features_per_stage": list(features),
                        "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
                        "kernel_sizes": [[3] * axes] * stages,
                        "strides": [[1] * axes] + [[2] * axes] * (stages - 1),
                        "n_conv_per_stage": [2] * stages,
                        "n_conv_per_stage_decoder": [2] * (stages - 1),
                        "conv_bias": True,
                        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
                        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
                "batch_dice": True,
            }
        },
    }
