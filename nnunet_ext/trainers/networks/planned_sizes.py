"""What nnU-Net's plans say about the size of a network, for parts that build another one."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_ext.architectures.backbone import Axes


@dataclass(frozen=True)
class PlannedSizes:
    """The sizes of the planned U-Net.

    Attributes:
        patch_size: patch size in voxels, per axis.
        strides: stride of each stage, per axis; that of the first is 1.
        features: number of channels of each stage.
    """

    patch_size: Axes
    strides: tuple[Axes, ...]
    features: tuple[int, ...]


def planned_sizes(configuration: ConfigurationManager, part: str) -> PlannedSizes:
    """The sizes of a configuration, for the part with this name.

    Raises:
        ValueError: if the plans are not of a U-Net with at least two stages, the first at full resolution.
    """
    architecture = configuration.network_arch_init_kwargs
    if not {"strides", "features_per_stage"} <= architecture.keys():
        raise ValueError(
            f"{part} takes its sizes from the strides and features_per_stage of a U-Net's plans; the plans describe "
            f"{configuration.network_arch_class_name}, which has none. Choose plans of a U-Net with -p."
        )
    strides = tuple(tuple(stride) for stride in architecture["strides"])
    if len(strides) < 2 or prod(strides[0]) != 1:
        raise ValueError(
            f"{part} needs plans with at least two stages, the first with stride 1; found the strides {strides}. "
            f"Choose other plans with -p."
        )
    return PlannedSizes(tuple(configuration.patch_size), strides, tuple(architecture["features_per_stage"]))


def require_room(sizes: PlannedSizes, stride: int, part: str) -> None:
    """Refuses a patch that is mostly padding for a network that reduces every axis by the same stride.

    Raises:
        ValueError: if more than half of the padded patch along an axis would be padding.
    """
    if any(2 * length < stride for length in sizes.patch_size):
        raise ValueError(
            f"{part} reduces every axis by {stride}, so a patch of {sizes.patch_size} voxels would be mostly padding "
            f"along its shortest axis. Train SegResNet, VNet or LCOVNet, which take the strides of the plans."
        )
