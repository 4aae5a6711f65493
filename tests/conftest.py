"""Tiny trained models and images for the tests of prediction. No training, and no nnU-Net variables.

Networks have random weights. Their logits are scaled up and images are made of blocks of constant grey: then almost
every voxel has one clear winner, and comparing segmentations says something about the predictor, not about ties.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

LABELS = {"background": 0, "left": 1, "right": 2}
PATCH_SIZES = {2: [16, 16], 3: [8, 16, 16]}
# Weights of these seeds, among the first 60, share the blocks most evenly between the three labels.
SEEDS = {2: (32, 29, 16, 17, 52), 3: (19, 22, 36, 37, 10)}
SPACINGS_MM = {2: [1.0, 1.0], 3: [2.0, 1.0, 1.0]}  # of the axes after transpose_forward


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small lose more time to the start of threads than they win."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_model_folder(tmp_path: Path, write_checkpoint: Callable[..., Path]) -> Callable[..., Path]:
    """Makes `TRAINER__PLANS__CONFIGURATION` below tmp_path, with a checkpoint_final.pth in each fold."""

    def make(
        name: str = "nnUNetTrainer__nnUNetPlans__2d",
        *,
        configuration: str = "2d",
        folds: Sequence[int | str] = (0,),
        labels: dict[str, Any] = LABELS,
        regions_class_order: Sequence[int] | None = None,
        channels: int = 1,
        patch_size: Sequence[int] | None = None,
        spacing_mm: Sequence[float] | None = None,
        transpose_forward: Sequence[int] = (0, 1, 2),
        mirror_axes: Sequence[int] | None = (0, 1),
        logit_scale: float = 50.0,
        seeds: Sequence[int] | None = None,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        dimensions = 2 if configuration == "2d" else 3
        plans = _plans(
            configuration,
            patch_size=list(patch_size or PATCH_SIZES[dimensions]),
            spacing_mm=list(spacing_mm or SPACINGS_MM[dimensions]),
            transpose_forward=list(transpose_forward),
            channels=channels,
        )
        dataset_json = {
            "channel_names": {str(index): f"channel {index}" for index in range(channels)},
            "labels": labels,
            "numTraining": 1,
            "file_ending": ".nii.gz",
        }
        if regions_class_order is not None:
            dataset_json["regions_class_order"] = list(regions_class_order)
        (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
        (folder / "dataset.json").write_text(json.dumps(dataset_json), encoding="utf-8")
        for fold, seed in zip(folds, seeds or SEEDS[dimensions], strict=False):
            write_checkpoint(
                folder, fold, configuration=configuration, mirror_axes=mirror_axes, logit_scale=logit_scale, seed=seed
            )
        return folder

    return make


@pytest.fixture
def write_checkpoint() -> Callable[..., Path]:
    """Adds a checkpoint with random weights to a fold, with all that nnUNetTrainer.save_checkpoint stores."""

    def write(
        model_folder: Path,
        fold: int | str = 0,
        file_name: str = "checkpoint_final.pth",
        *,
        configuration: str = "2d",
        trainer_name: str = "nnUNetTrainer",
        mirror_axes: Sequence[int] | None = (0, 1),
        logit_scale: float = 50.0,
        seed: int = 0,
        edit: Callable[[dict[str, Any]], None] = lambda checkpoint: None,
    ) -> Path:
        plans = json.loads((model_folder / "plans.json").read_text(encoding="utf-8"))
        dataset_json = json.loads((model_folder / "dataset.json").read_text(encoding="utf-8"))
        network = _random_network(plans, configuration, dataset_json, logit_scale=logit_scale, seed=seed)
        checkpoint = {
            "network_weights": network.state_dict(),
            "optimizer_state": torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99).state_dict(),
            "grad_scaler_state": None,
            "logging": LocalLogger().get_checkpoint(),
            "_best_ema": np.float64(0.5),
            "current_epoch": 1000,
            "init_args": {
                "plans": plans,
                "configuration": configuration,
                "fold": fold,
                "dataset_json": dataset_json,
                "device": torch.device("cpu"),
            },
            "trainer_name": trainer_name,
            "inference_allowed_mirroring_axes": None if mirror_axes is None else tuple(mirror_axes),
        }
        edit(checkpoint)
        path = model_folder / f"fold_{fold}" / file_name
        path.parent.mkdir(exist_ok=True)
        torch.save(checkpoint, path)
        return path

    return write


@pytest.fixture
def make_image() -> Callable[..., Path]:
    """Writes `CASE_0000.nii.gz` and so on: blocks of constant grey in a frame of zeros that nnU-Net crops away."""

    def make(
        folder: Path,
        case: str = "case",
        *,
        shape_zyx: tuple[int, int, int] = (4, 20, 26),
        spacing_xyz: tuple[float, float, float] = (1.0, 1.0, 4.0),
        channels: int = 1,
        seed: int = 0,
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        for channel in range(channels):
            image = sitk.GetImageFromArray(_blocks(shape_zyx, rng))
            image.SetSpacing(spacing_xyz)
            image.SetOrigin((-7.0, 3.5, 11.0))
            image.SetDirection((0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))  # a quarter turn in the plane
            sitk.WriteImage(image, str(folder / f"{case}_{channel:04d}.nii.gz"))
        return folder

    return make


@pytest.fixture
def stock_predictor() -> Callable[..., nnUNetPredictor]:
    """Opens a model folder with nnU-Net's own predictor on the CPU; `exact=True` gives it fp32 accumulators."""

    def open_folder(
        folder: Path, folds: Sequence[int | str] | None = None, *, exact: bool = False, **settings: Any
    ) -> nnUNetPredictor:
        kind = ExactStockPredictor if exact else nnUNetPredictor
        predictor = kind(device=torch.device("cpu"), allow_tqdm=False, **settings)
        predictor.initialize_from_trained_model_folder(str(folder), folds)
        return predictor

    return open_folder


class ExactStockPredictor(nnUNetPredictor):
    """nnU-Net's predictor with fp32 in place of its half-precision window and sums; all else is nnU-Net's."""

    @torch.inference_mode()
    def _internal_predict_sliding_window_return_logits(
        self, data: torch.Tensor, slicers: list[tuple], do_on_device: bool = True
    ) -> torch.Tensor:
        logits = torch.zeros((self.label_manager.num_segmentation_heads, *data.shape[1:]))
        weights = torch.zeros(data.shape[1:])
        window: torch.Tensor | float = 1.0
        if self.use_gaussian:
            window = compute_gaussian(
                tuple(self.configuration_manager.patch_size), 1.0 / 8, 10, torch.float32, torch.device("cpu")
            )
        for slicer in slicers:
            logits[slicer] += self._internal_maybe_mirror_and_predict(data[slicer][None])[0] * window
            weights[slicer[1:]] += window
        return logits / weights


def _random_network(
    plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any], *, logit_scale: float, seed: int
) -> torch.nn.Module:
    manager = PlansManager(plans)
    torch.manual_seed(seed)
    network = nnUNetTrainer.build_network_architecture(
        manager,
        manager.get_configuration(configuration),
        determine_num_input_channels(manager, configuration, dataset_json),
        manager.get_label_manager(dataset_json).num_segmentation_heads,
        True,  # training has deep supervision; the weights have the same names without
    )
    with torch.no_grad():
        for parameter in network.decoder.seg_layers.parameters():
            parameter.mul_(logit_scale)
    return network


def _blocks(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    voxels = np.zeros(shape, np.float32)
    inside = voxels[:, 2:-1, 1:-3]  # a view: the frame is not the same on all sides, so that a shift shows
    inside[:] = 100
    for grey in (40, 170, 240, 310):
        corner = [int(rng.integers(0, length - length // 3)) for length in inside.shape]
        box = tuple(slice(start, start + length // 2 + 1) for start, length in zip(corner, inside.shape, strict=True))
        inside[box] = grey
    return voxels


def _plans(
    configuration: str,
    *,
    patch_size: list[int],
    spacing_mm: list[float],
    transpose_forward: list[int],
    channels: int,
) -> dict[str, Any]:
    return {
        "dataset_name": "Dataset998_Tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [4.0, 1.0, 1.0],
        "original_median_shape_after_transp": [4, 20, 26],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": transpose_forward,
        "transpose_backward": np.argsort(transpose_forward).tolist(),
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        # looked up for every channel, also by the z-score normalization, which does not need them
        "foreground_intensity_properties_per_channel": {str(channel): {} for channel in range(channels)},
        "configurations": _configurations(configuration, patch_size, spacing_mm, channels),
    }


def _configurations(
    name: str, patch_size: list[int], spacing_mm: list[float], channels: int
) -> dict[str, dict[str, Any]]:
    dimensions = len(patch_size)
    function = "resample_data_or_seg_to_shape"
    linear = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    planned = {
        "data_identifier": f"nnUNetPlans_{name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch_size,
        "median_image_size_in_voxels": patch_size,
        "spacing": spacing_mm,
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "resampling_fn_data": function,
        "resampling_fn_data_kwargs": {**linear, "order": 3},
        "resampling_fn_seg": function,
        "resampling_fn_seg_kwargs": {**linear, "is_seg": True},
        "resampling_fn_probabilities": function,
        "resampling_fn_probabilities_kwargs": linear,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [4, 6, 8],
                "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
                "kernel_sizes": [[3] * dimensions] * 3,
                "strides": [[1] * dimensions, [2] * dimensions, [2] * dimensions],
                "n_conv_per_stage": [1, 1, 1],
                "n_conv_per_stage_decoder": [1, 1],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
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
    if name == "3d_cascade_fullres":
        return {"3d_lowres": {**planned, "next_stage": name}, name: {**planned, "previous_stage": "3d_lowres"}}
    return {name: planned}
