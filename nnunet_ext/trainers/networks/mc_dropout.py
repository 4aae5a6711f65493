"""Monte Carlo dropout: the planned network with dropout layers that stay active in prediction (arXiv 1506.02142)."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from typing import Any, Literal

from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from nnunet_ext.architectures.feature_taps import is_unet
from nnunet_ext.trainers.base import ExtTrainer

DropoutLevels = Literal["deepest", "all"]


class MCDropout(ExtTrainer):
    """Adds dropout between convolution and norm of the blocks, with the `dropout_op` that nnU-Net's blocks provide.

    Dropout has no weights, and the other layers keep their names, so checkpoints also fit the network without it.
    """

    dropout_probability: float = 0.5
    dropout_percent: int | None = None  # of the name, instead of dropout_probability
    dropout_levels: DropoutLevels = "deepest"

    @classmethod
    def build_network_architecture(  # a classmethod, so that super() finds other parts
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The network that the other parts of the name build, with dropout.

        Raises:
            ValueError: if the network does not take dropout, or an attribute is out of range.
        """
        network = super().build_network_architecture(
            plans_manager,
            with_dropout_layers(configuration_manager, cls.dropout_rate()),
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )
        keep_plain_names(network)
        limit_dropout(network, cls.dropout_levels)
        return network

    @classmethod
    def dropout_rate(cls) -> float:
        """The probability that a channel is dropped, which `Dropout<n>` in the name sets in percent."""
        return cls.dropout_probability if cls.dropout_percent is None else cls.dropout_percent / 100


def with_dropout_layers(planned: ConfigurationManager, probability: float) -> ConfigurationManager:
    """A copy of a configuration whose network drops whole channels (Dropout2d, Dropout3d) in every block.

    Raises:
        ValueError: if the network of the plans does not take `dropout_op`, or the probability is not in [0, 1).
    """
    if not 0 <= probability < 1:
        raise ValueError(f"dropout_probability must be at least 0 and below 1; found {probability}.")
    architecture = deepcopy(planned.configuration["architecture"])  # the planned one is shared and must not change
    if "dropout_op" not in architecture["arch_kwargs"]:
        raise ValueError(
            f"MCDropout needs a network that takes dropout_op; the plans have none for "
            f"{architecture['network_class_name']}. Leave the part out, or use other plans; if the network does take "
            f'it, add "dropout_op": null to its arch_kwargs.'
        )
    axes = len(planned.patch_size)
    architecture["arch_kwargs"]["dropout_op"] = f"torch.nn.modules.dropout.Dropout{axes}d"
    architecture["arch_kwargs"]["dropout_op_kwargs"] = {"p": probability}
    architecture["_kw_requires_import"] = sorted({*architecture["_kw_requires_import"], "dropout_op"})
    return ConfigurationManager({**planned.configuration, "architecture": architecture})


def keep_plain_names(network: nn.Module) -> None:
    """Excludes dropout from the numbering of each block's layers, so that the norm after it keeps its name."""
    for block in network.modules():
        if isinstance(block, ConvDropoutNormReLU):
            layers = list(block.all_modules)
            numbered = [layer for layer in layers if not isinstance(layer, _DropoutNd)]
            names = {id(layer): str(number) for number, layer in enumerate(numbered)}
            block.all_modules = nn.Sequential(
                OrderedDict((names.get(id(layer), "dropout"), layer) for layer in layers)
            )


def limit_dropout(network: Any, levels: DropoutLevels) -> None:
    """With "deepest", keeps dropout in the two deepest levels of encoder and decoder and sets it to 0 elsewhere.

    Raises:
        ValueError: if the network does not have nnU-Net's encoder and decoder, or `levels` is unknown.
    """
    if not is_unet(network):
        raise ValueError(
            f"MCDropout needs a U-Net with nnU-Net's encoder and decoder (PlainConvUNet, ResidualEncoderUNet); found "
            f"{type(network).__name__}. Leave the part out, or use other plans."
        )
    if levels not in ("deepest", "all"):
        raise ValueError(f'dropout_levels must be "deepest" or "all"; found {levels!r}.')
    if levels == "all":
        return
    deepest = [*network.encoder.stages[-2:], network.decoder.stages[0]]  # the bottleneck has no decoder stage
    kept = {id(module) for stage in deepest for module in stage.modules()}
    for module in network.modules():
        if isinstance(module, _DropoutNd) and id(module) not in kept:
            module.p = 0.0
