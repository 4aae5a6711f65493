"""Fine-tuning of low-rank changes of the pre-trained convolutions (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from nnunet_ext.architectures.low_rank import add_adapters, low_rank_convs
from nnunet_ext.files.checkpoints import EXTRA_STATE_KEY
from nnunet_ext.trainers.fine_tuning.finetune import Finetune
from nnunet_ext.trainers.part_state import PartWithState

NOT_TRANSFERRED = "not_transferred"  # in the part's state, beside the names of the convolutions


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
        """See `Finetune`; transferred weights and biases of adapted convolutions as well, in every stage.

        A convolution whose weights were not transferred trains them and keeps an adapter that changes nothing.
        """
        named = dict(self.plain_network.named_parameters(remove_duplicate=False))
        initial = {id(named[name]) for name in self.not_transferred if name in named}
        frozen = super().frozen_parameters()
        for conv in low_rank_convs(self.plain_network).values():
            frozen |= {id(part) for part in (conv.weight, conv.bias) if part is not None} - initial
            if id(conv.weight) in initial:
                frozen |= {id(conv.down), id(conv.up)}
        return frozen

    def enter_stage_of(self, checkpoint: Mapping[str, Any]) -> None:
        state = checkpoint.get(EXTRA_STATE_KEY, {}).get(self.state_key, {})
        self.not_transferred = tuple(state.get(NOT_TRANSFERRED, ()))
        super().enter_stage_of(checkpoint)

    def part_state(self) -> dict[str, Any]:
        adapters = {name: conv.adapter_state() for name, conv in low_rank_convs(self.plain_network).items()}
        return {**adapters, NOT_TRANSFERRED: list(self.not_transferred)}

    def load_part_state(self, state: dict[str, Any]) -> None:
        for name, conv in low_rank_convs(self.plain_network).items():
            conv.load_adapter_state(state[name])
