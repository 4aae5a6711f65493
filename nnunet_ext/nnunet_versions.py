"""nnU-Net's versions: which are known, and what differs between them where this package calls nnU-Net."""

from __future__ import annotations

import inspect
import re
from importlib import metadata
from typing import Any

OLDEST = (2, 8, 0)
NEWEST_KNOWN = (2, 8)


def installed_version() -> str:
    """The version of nnU-Net that is installed."""
    return metadata.version("nnunetv2")


def remark_on(version: str) -> str:
    """What to do about a version of nnU-Net; "" if the test-suite was run with such a one.

    A newer version is not refused: most of them work.

    Args:
        version: as packages write it, such as "2.8.1", "2.9.0rc1" or "2.10.0.dev3".
    """
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if numbers < OLDEST:
        return f'pip install "nnunetv2>={".".join(map(str, OLDEST))}"'
    if numbers[: len(NEWEST_KNOWN)] > NEWEST_KNOWN:
        known = ".".join(map(str, NEWEST_KNOWN))
        return (
            f"this is newer than {known}, the last version that nnunet_ext was tested with: look for a newer "
            f'nnunet_ext; if something fails, pip install "nnunetv2=={known}.*"'
        )
    return ""


def network_of_trainer(trainer: type, plans: Any, configuration: Any, channels: int, outputs: int) -> Any:
    """The network that a trainer builds, without deep supervision.

    Trainers with the signature of before nnU-Net 2.8 are called with their old arguments, as stock nnU-Net does.

    Args:
        trainer: a class derived from nnU-Net's trainer.
        plans: nnU-Net's plans manager.
        configuration: its configuration manager.
        channels: of the input.
        outputs: of the network.
    """
    build = trainer.build_network_architecture  # type: ignore[attr-defined]
    if "plans_manager" in inspect.signature(build).parameters:
        return build(plans, configuration, channels, outputs, False)
    return build(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        channels,
        outputs,
        False,
    )
