"""Plans for images without labels: the fixed ones of S3D's paper, or those of another dataset."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from nnunetv2.imageio.reader_writer_registry import (
    determine_reader_writer_from_file_ending,
    recursive_find_reader_writer_by_name,
)

from nnunet_ext.options.pretraining import FixedPlans

FIXED_NAME = "nnUNetPretrainPlans"
CONFIGURATION = "3d_fullres"
STRIDES = (1, 2, 2, 2, 2, 2)
FEATURES = (32, 64, 128, 256, 320, 320)
BLOCKS = (1, 3, 4, 6, 6, 6)  # ResEnc-L


def fixed_plans(
    dataset: str, fixed: FixedPlans, *, channels: int, batch_size: int, file_ending: str
) -> dict[str, Any]:
    """Plans that do not depend on the images: ResEnc-L, one spacing, z-score per image.

    Args:
        dataset: full name.
        fixed: spacing and patch.
        channels: of a scan.
        batch_size: patches per iteration.
        file_ending: of the scans, which decides the reader.
    """
    return {
        "dataset_name": dataset,
        "plans_name": FIXED_NAME,
        "original_median_spacing_after_transp": [fixed.spacing_mm] * 3,
        "original_median_shape_after_transp": [fixed.patch_size] * 3,
        "image_reader_writer": reader_of(file_ending),
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "nnunet_ext pretrain",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(channel): {} for channel in range(channels)},
        "configurations": {CONFIGURATION: fixed_configuration(fixed, channels, batch_size)},
    }


def fixed_configuration(fixed: FixedPlans, channels: int, batch_size: int) -> dict[str, Any]:
    """The only configuration of the fixed plans."""
    resampling: dict[str, Any] = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": f"{FIXED_NAME}_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": batch_size,
        "patch_size": [fixed.patch_size] * 3,
        "median_image_size_in_voxels": [float(fixed.patch_size)] * 3,
        "spacing": [fixed.spacing_mm] * 3,
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "batch_dice": False,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
            "arch_kwargs": {
                "n_stages": len(STRIDES),
                "features_per_stage": list(FEATURES),
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * len(STRIDES),
                "strides": [[stride] * 3 for stride in STRIDES],
                "n_blocks_per_stage": list(BLOCKS),
                "n_conv_per_stage_decoder": [1] * (len(STRIDES) - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }


def adopted_plans(
    file: Path, dataset: str, configuration: str, *, batch_size: int | None, file_ending: str
) -> dict[str, Any]:
    """The plans of another dataset for this one.

    Args:
        file: its plans, a JSON file in `nnUNet_preprocessed` or in a model folder.
        dataset: full name of this dataset.
        configuration: which one is used.
        batch_size: None keeps that of the plans.
        file_ending: of the scans; the reader is replaced if it does not support it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no nnU-Net plans file, or lacks the configuration.
    """
    if not file.is_file():
        raise FileNotFoundError(f"--plans takes a JSON file with nnU-Net's plans; {file} does not exist.")
    plans = deepcopy(json.loads(file.read_text(encoding="utf-8")))
    configurations = plans.get("configurations", {}) if isinstance(plans, dict) else {}
    if configuration not in configurations:
        known = ", ".join(configurations) or "none, so it is not a plans file"
        raise ValueError(f"{file} must have the configuration {configuration}; it has {known}. Choose one with -c.")
    plans["dataset_name"] = dataset
    if batch_size is not None:
        configurations[configuration]["batch_size"] = batch_size
    if file_ending not in recursive_find_reader_writer_by_name(plans["image_reader_writer"]).supported_file_endings:
        plans["image_reader_writer"] = reader_of(file_ending)
    return plans


def reader_of(file_ending: str) -> str:
    """The name of the reader that nnU-Net chooses for a file ending."""
    return determine_reader_writer_from_file_ending(file_ending, verbose=False).__name__
