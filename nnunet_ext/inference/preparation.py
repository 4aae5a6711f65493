"""A case made ready for every model of an ensemble, once for all models that make it ready alike."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch

from nnunet_ext.inference.accumulation.case_frame import PreparedCase
from nnunet_ext.inference.sliding_window import tile_image
from nnunet_ext.input_checks import require_good_case
from nnunet_ext.models.model import Model, channel_names
from nnunet_ext.options import EnsembleOptions
from nnunet_ext.prediction_folder.cases import Case

# Entries of the plans that only name them, or concern training, the network, its patches or its output.
NOT_OF_PREPROCESSING = frozenset(
    {"plans_name", "dataset_name", "experiment_planner_used", "label_manager", "configurations"}
    | {"architecture", "batch_size", "batch_dice", "data_identifier", "next_stage"}
    | {"patch_size", "median_image_size_in_voxels"}
    | {"resampling_fn_probabilities", "resampling_fn_probabilities_kwargs"}
)


def prepare_case(case: Case, models: Sequence[Model], options: EnsembleOptions) -> list[PreparedCase]:
    """Checks a case's files and preprocesses them for every model.

    Models with the same preprocessing share the image, and those with the same patch size as well the prepared case,
    which must therefore not be changed.

    Args:
        case: the case.
        models: models that read the same files, see `require_same_labels`.
        options: the ensemble's options.

    Returns:
        The case for each model, in the models' order.

    Raises:
        BadInputError: if a file is damaged or the files do not belong together.
    """
    first = models[0]
    require_good_case(
        case.files,
        file_ending=first.dataset_json["file_ending"],
        channels=len(channel_names(first)),
        reader=first.plans.plans["image_reader_writer"],
        previous_stage=case.previous_stage if any(model.is_cascaded for model in models) else None,
    )
    images: dict[str, tuple[torch.Tensor, dict]] = {}
    tiled: dict[tuple[str, tuple[int, ...]], PreparedCase] = {}
    keys = [(preprocessing_of(model), tuple(model.configuration.patch_size)) for model in models]
    for model, key in zip(models, keys, strict=True):
        if key[0] not in images:
            images[key[0]] = model.preprocess(case)
        if key not in tiled:
            tiled[key] = prepare_image(model, *images[key[0]], options=options)
    return [tiled[key] for key in keys]


def prepare_image(
    model: Model, image: torch.Tensor, properties: dict | None = None, *, options: EnsembleOptions
) -> PreparedCase:
    """Divides a preprocessed image (channels, *spatial) into the tiles of a model."""
    tiled = tile_image(
        image, model.configuration.patch_size, step_size=options.tile_step_size, gaussian=options.use_gaussian
    )
    return PreparedCase(tiled, properties or {})


def preprocessing_of(model: Model) -> str:
    """How a model's images are preprocessed, as text: models with the same text preprocess alike.

    Of the plans counts all that is not known to be something else, since a custom preprocessor may read its own
    entries.
    """
    both = (model.plans.plans, model.configuration.configuration)
    return json.dumps(
        [{name: value for name, value in one.items() if name not in NOT_OF_PREPROCESSING} for one in both],
        sort_keys=True,
    )
