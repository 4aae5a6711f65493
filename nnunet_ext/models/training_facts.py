"""What a checkpoint was trained with, as far as prediction must do the same; compared, since nnU-Net does not."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

INTENSITIES = "foreground_intensity_properties_per_channel"
# These go by the image alone: the dataset's intensities, which change with every new case, do not matter to them.
WITHOUT_INTENSITIES = {
    *("ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"),
}
OF_CONFIGURATION = (
    *("spacing", "preprocessor_name", "normalization_schemes", "use_mask_for_norm", "previous_stage"),
    *("resampling_fn_data", "resampling_fn_data_kwargs", "architecture"),
)
OF_DATASET = ("labels", "regions_class_order", "channel_names")

logger = logging.getLogger(__name__)


def training_facts(plans: Mapping[str, Any], dataset_json: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """What decides how images reach the network and what its outputs mean; empty if the plans lack the configuration.

    Args:
        plans: nnU-Net's.
        dataset_json: the dataset's description.
        configuration: name of one of the plans.
    """
    if configuration not in plans.get("configurations", {}):
        return {}
    with redirect_stdout(io.StringIO()):  # nnU-Net prints a remark about plans of its earlier versions
        resolved = PlansManager(dict(plans)).get_configuration(configuration).configuration
    return (
        {"transpose_forward": plans.get("transpose_forward"), INTENSITIES: _used_intensities(plans, resolved)}
        | {key: resolved.get(key) for key in OF_CONFIGURATION}
        | {key: dataset_json.get(key) for key in OF_DATASET}
    )


def _used_intensities(plans: Mapping[str, Any], configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Intensities of the dataset by channel, where the channel's normalization uses them."""
    schemes = configuration.get("normalization_schemes", [])
    intensities = plans.get(INTENSITIES) or {}
    return {
        str(channel): intensities.get(str(channel))
        for channel, scheme in enumerate(schemes)
        if scheme not in WITHOUT_INTENSITIES
    }


def facts_of_checkpoint(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that a checkpoint stores; empty where it stores none, or plans that nnU-Net does not understand."""
    stored = checkpoint["init_args"]
    plans, dataset_json = stored.get("plans"), stored.get("dataset_json")
    if not isinstance(plans, Mapping) or not isinstance(dataset_json, Mapping):
        return {}
    try:
        return training_facts(plans, dataset_json, stored["configuration"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):  # the folder's own plans count
        return {}


def differing(facts: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """The names of the facts that differ; none where one side knows nothing."""
    return [key for key in facts if key in others and facts[key] != others[key]]


def warn_of_other_plans(
    facts_of_members: Mapping[Path, Mapping[str, Any]], folder: Path, facts: Mapping[str, Any]
) -> None:
    """Warns once per folder where plans.json or dataset.json are not what the members were trained with.

    It is no error: predicting with another resampling than training is done on purpose, and stock
    nnU-Net goes by the folder's files as well.

    Args:
        facts_of_members: of the folder, by the files of the members.
        folder: the model folder.
        facts: of the folder's own files.
    """
    for path, own in facts_of_members.items():
        changed = differing(own, facts)
        if changed:
            logger.warning(
                "%s was trained with other plans than those in %s, which are used: %s differ. If they were not "
                "changed on purpose, restore plans.json and dataset.json from the training.",
                *(path, folder, ", ".join(changed)),
            )
            return
