"""The settings of a training that prediction must share; nnU-Net does not compare them, so this module does."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

INTENSITIES = "foreground_intensity_properties_per_channel"
# These normalise by the image alone, so the dataset's intensities, which change with every new case, are irrelevant.
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
    """The settings that decide how images reach the network and what its outputs mean.

    Args:
        plans: nnU-Net's plans.
        dataset_json: contents of `dataset.json`.
        configuration: name of the configuration.

    Returns:
        Setting name to value; empty if the plans do not have the configuration.
    """
    if configuration not in plans.get("configurations", {}):
        return {}
    with redirect_stdout(io.StringIO()):  # nnU-Net prints a notice about plans of earlier versions
        resolved = PlansManager(dict(plans)).get_configuration(configuration).configuration
    return (
        {"transpose_forward": plans.get("transpose_forward"), INTENSITIES: _used_intensities(plans, resolved)}
        | {key: resolved.get(key) for key in OF_CONFIGURATION}
        | {key: dataset_json.get(key) for key in OF_DATASET}
    )


def _used_intensities(plans: Mapping[str, Any], configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The dataset's intensity statistics of those channels whose normalization uses them."""
    schemes = configuration.get("normalization_schemes", [])
    intensities = plans.get(INTENSITIES) or {}
    return {
        str(channel): intensities.get(str(channel))
        for channel, scheme in enumerate(schemes)
        if scheme not in WITHOUT_INTENSITIES
    }


def facts_of_checkpoint(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The training facts that a checkpoint stores; empty if it stores none, or plans that nnU-Net cannot read."""
    stored = checkpoint["init_args"]
    plans, dataset_json = stored.get("plans"), stored.get("dataset_json")
    if not isinstance(plans, Mapping) or not isinstance(dataset_json, Mapping):
        return {}
    try:
        return training_facts(plans, dataset_json, stored["configuration"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):  # prediction uses the folder's plans
        return {}


def differing(facts: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """The names of the facts that differ; facts that only one side has are not compared."""
    return [key for key in facts if key in others and facts[key] != others[key]]


def warn_of_other_plans(
    facts_of_members: Mapping[Path, Mapping[str, Any]], folder: Path, facts: Mapping[str, Any]
) -> None:
    """Warns once per folder if plans.json or dataset.json differ from what the members were trained with.

    It is not an error: some predict on purpose with another resampling than in training, and stock nnU-Net uses the
    folder's files as well.

    Args:
        facts_of_members: checkpoint path to the facts that it stores.
        folder: the model folder.
        facts: the facts of the folder's own files.
    """
    for path, own in facts_of_members.items():
        changed = differing(own, facts)
        if changed:
            logger.warning(
                "%s was trained with other plans than those in %s, which are used: %s differ. Unless they were "
                "changed on purpose, restore plans.json and dataset.json from the training.",
                *(path, folder, ", ".join(changed)),
            )
            return
