"""What a program needs to know about a model besides its networks: the content of `model.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import nnunet_ext
from nnunet_ext.deployment.refusal import DeploymentError
from nnunet_ext.models.model import Model, channel_names
from nnunet_ext.nnunet_versions import installed_version

TILE_STEP = 0.5  # of a patch, as stock
READERS = ("SimpleITKIO", "NibabelIO")  # both give NIfTI files the axes (z, y, x)
SCHEMES = (
    "CTNormalization",
    "ZScoreNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
    "NoNormalization",
)
RESAMPLING = "resample_data_or_seg_to_shape"
INTENSITIES = ("mean", "std", "percentile_00_5", "percentile_99_5")


def model_facts(model: Model) -> dict[str, Any]:
    """Preprocessing, labels and versions of a model, as JSON holds them.

    Raises:
        DeploymentError: if the model does something that the stand-alone example does not.
    """
    require_plain_steps(model)
    configuration, labels = model.configuration, model.labels
    regions = labels.has_regions
    return {
        "model": model.folder.name,
        "dataset": model.plans.dataset_name,
        "versions": {
            "nnunet_ext": nnunet_ext.__version__,
            "nnunetv2": str(installed_version()),
            "torch": torch.__version__,
        },
        "channels": channel_names(model),
        "transpose_forward": [int(axis) for axis in model.plans.transpose_forward],
        "transpose_backward": [int(axis) for axis in model.plans.transpose_backward],
        "spacing_mm": [float(size) for size in configuration.spacing],
        "patch_size": [int(size) for size in configuration.patch_size],
        "normalisation": normalisations(model),
        "resampling": {
            "image": resampling_of(model, "resampling_fn_data"),
            "logits": resampling_of(model, "resampling_fn_probabilities"),
        },
        "nonlinearity": "sigmoid" if regions else "softmax",
        "labels": model.dataset_json["labels"],
        "largest_label": int(max(labels.foreground_labels)),
        "regions_class_order": list(model.dataset_json["regions_class_order"]) if regions else None,
        "flip_axes": [int(axis) for axis in model.mirror_axes or ()],
        "step_size": TILE_STEP,
    }


def normalisations(model: Model) -> list[dict[str, Any]]:
    """How each channel is normalised."""
    properties = model.plans.foreground_intensity_properties_per_channel
    configuration = model.configuration
    pairs = zip(configuration.normalization_schemes, configuration.use_mask_for_norm, strict=True)
    return [
        {"scheme": scheme, "use_mask_for_norm": bool(masked)}
        | {name: float(value) for name, value in properties.get(str(channel), {}).items() if name in INTENSITIES}
        for channel, (scheme, masked) in enumerate(pairs)
    ]


def resampling_of(model: Model, name: str) -> dict[str, Any]:
    """The settings of one of the plans' resampling functions that the example reads."""
    settings = model.configuration.configuration[f"{name}_kwargs"]
    return {"order": int(settings.get("order", 3)), "force_separate_z": settings.get("force_separate_z", False)}


def require_plain_steps(model: Model) -> None:
    """Refuses a model whose steps the stand-alone example does not have.

    Raises:
        DeploymentError: if so.
    """
    plans, configuration = model.plans.plans, model.configuration
    steps = configuration.configuration
    for what, found, known in (
        ("a preprocessor", steps.get("preprocessor_name", "DefaultPreprocessor"), ("DefaultPreprocessor",)),
        ("a reader", plans["image_reader_writer"], READERS),
        ("a resampling of images", steps["resampling_fn_data"], (RESAMPLING,)),
        ("a resampling of logits", steps["resampling_fn_probabilities"], (RESAMPLING,)),
        ("a nearest slice (order_z)", steps["resampling_fn_data_kwargs"].get("order_z", 0), (0,)),
        ("a nearest slice (order_z)", steps["resampling_fn_probabilities_kwargs"].get("order_z", 0), (0,)),
        *(("a normalisation", scheme, SCHEMES) for scheme in configuration.normalization_schemes),
    ):
        if found not in known:
            raise DeploymentError(
                f"An exported model needs {what} among {', '.join(map(str, known))}, which its stand-alone program "
                f"has; {model.folder} uses {found}. Predict with nnunet_ext or nnU-Net instead."
            )
    if model.is_cascaded:
        raise DeploymentError(
            f"A model is exported that segments an image on its own; {model.folder} is the second stage of a "
            f"cascade. Export 3d_fullres or 3d_lowres."
        )
    if len(model.volumes.classifiers) > 1 or not model.volumes.may_be_compiled:
        raise DeploymentError(
            f"A network is exported that segments a patch on its own; {model.folder} is a mixture of classifiers, "
            f"weighted by the whole volume. Copy one of them, nnunet_ext export --classifier 0, and export the copy."
        )


def example_file() -> Path:
    """The stand-alone program that is copied beside the networks as `predict.py`."""
    return Path(__file__).with_name("stand_alone.py")
