"""Fine-tuning of low-rank changes of the pre-trained convolutions (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nnunet_ext.architectures.low_rank import add_adapters, low_rank_convs
from nnunet_ext.trainers.fine_tuning.finetune import Finetune
from nnunet_ext.trainers.part_state import PartWithState


class LoRA(PartWithState, Finetune):
    """`Finetune` in which the transferred convolutions keep their weights W, and low-rank changes B·A train.

    Norms, transposed convolutions and what is not transferred train as in `Finetune`. Every checkpoint stores the
    merged weights W + B·A as `network_weights`; W, A and B are stored under their own key, for resuming.
    """

    state_key = "low_rank_adapters"
    rank: int = 8

    def training_network(self, network: nn.Module) -> nn.Module:
        """The network with adapters in the encoder, and in the decoder if that is transferred as well."""
        wrapped = super().training_network(network)
        unet: Any = network
        add_adapters(unet.encoder, self.rank)
        if self.with_decoder:
            add_adapters(unet.decoder.stages, self.rank)
        return wrapped

    def frozen_parameters(self) -> set[int]:
        """See `Finetune`; weights and biases of adapted convolutions as well, in every stage."""
        kept = [part for conv in low_rank_convs(self.plain_network).values() for part in (conv.weight, conv.bias)]
        return super().frozen_parameters() | {id(part) for part in kept if part is not None}

    def part_state(self) -> dict[str, dict[str, Tensor]]:
        return {name: conv.adapter_state() for name, conv in low_rank_convs(self.plain_network).items()}

    def load_part_state(self, state: dict[str, dict[str, Tensor]]) -> None:
        for name, conv in low_rank_convs(self.plain_network).items():
            conv.load_adapter_state(state[name])
