"""A network around one of nnU-Net's, whose checkpoints are those of the plain network inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


class AroundPlainNetwork(nn.Module):
    """Keeps a plain network, and shows nnU-Net its encoder, decoder and weights.

    What a subclass adds is not in its state dict, so that every checkpoint loads in the plain network.

    Args:
        plain: one of nnU-Net's U-Nets, or another network with its `decoder.deep_supervision`.
    """

    plain: Any

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.plain = plain

    @property
    def encoder(self) -> nn.Module:
        """The plain network's encoder."""
        return self.plain.encoder

    @property
    def decoder(self) -> nn.Module:
        """The plain network's decoder, where nnU-Net switches deep supervision."""
        return self.plain.decoder

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The plain network's weights."""
        return self.plain.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads the plain network's weights; what is around it is unchanged."""
        return self.plain.load_state_dict(state_dict, strict=strict, assign=assign)
