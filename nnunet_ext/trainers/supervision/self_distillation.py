"""Dual self-distillation: one level of the encoder and one of the decoder teach the others (arXiv 2306.03271)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NoReturn, cast

from torch import nn

from nnunet_ext.architectures.distillation_heads import (
    DistillationHead,
    LevelHeads,
    VectorHead,
    parameter_count,
    steps_to_full_resolution,
)
from nnunet_ext.architectures.feature_taps import Levels, taps_of
from nnunet_ext.architectures.self_distilling import SelfDistillingNetwork
from nnunet_ext.losses.self_distillation_objective import (
    DistillationTerms,
    SelfDistillationLoss,
    TeacherRule,
)
from nnunet_ext.trainers.losses.one_output import loss_of_one_output
from nnunet_ext.trainers.part_state import PartWithState

FEWEST_LEVELS_FOR_VECTORS = 4


class DSD(PartWithState):
    """Dual self-distillation: supervises the decoder's levels, and has a teacher in the encoder and in the decoder.

    The heads exist in training only. Every checkpoint stores the weights of the plain network as `network_weights`,
    and those of the heads under their own key.
    """

    state_key = "distillation_heads"
    supervision_weight: float = 1.0  # eta
    encoder_weight: float = 1.0  # alpha
    decoder_weight: float = 1.0  # beta
    divergence_percent: int = 100  # of alpha and beta
    vector_weight: float = 0.0
    temperature: float = 3.0
    teacher: TeacherRule = "deep"
    detach_teacher: bool = False
    shared_heads: bool | None = None  # None: as the released code has it for the network
    mean_supervision: bool = True
    distillation_resolution: Literal["native", "full"] = "native"
    padded_to: Sequence[int] = ()  # set with the network: see `Levels.multiple`

    @property
    def terms(self) -> DistillationTerms:
        """The terms of the loss."""
        share = self.divergence_percent / 100
        return DistillationTerms(
            supervision=self.supervision_weight,
            encoder=share * self.encoder_weight,
            decoder=share * self.decoder_weight,
            vectors=self.vector_weight,
            temperature=self.temperature,
            teacher=self.teacher,
            detach_teacher=self.detach_teacher,
            mean_supervision=self.mean_supervision,
            regions=self.label_manager.has_regions,
        )

    def training_network(self, network: nn.Module) -> nn.Module:
        plain = super().training_network(network)
        levels = taps_of(plain).levels
        self.padded_to = levels.multiple
        distilling = SelfDistillingNetwork(
            plain,
            self.segmentation_heads(levels),
            self.vector_heads(levels),
            full_resolution=self.distillation_resolution == "full",
        )
        added = parameter_count(distilling.distillation_heads)
        self.print_to_log_file(
            f"Self-distillation at {self.distillation_resolution} resolution, {self.terms}. The heads, used in "
            f"training only, add {added} parameters to the network's {parameter_count(plain)}."
        )
        return distilling

    def segmentation_heads(self, levels: Levels) -> LevelHeads:
        """Heads on the levels that enter the loss; DDP fails on a head without gradient.

        Raises:
            ValueError: if a detached teacher would never learn, or heads cannot be shared.
        """

        def make_head(side: str, level: int) -> DistillationHead:
            return DistillationHead(
                levels.channels(side, level),
                self.label_manager.num_segmentation_heads,
                steps_to_full_resolution(levels.strides, level) if self.distillation_resolution == "full" else (),
                levels.conv_op,
            )

        count = len(levels.strides)
        encoder_levels = range(count - 1) if self.encoder_weight else range(0)
        decoder_levels = range(1, count) if self.decoder_weight or self.supervision_weight else range(0)
        shared = not levels.separate_heads if self.shared_heads is None else self.shared_heads
        if shared:
            require_equal_channels(levels, set(encoder_levels) & set(decoder_levels))
        heads = LevelHeads(make_head, encoder_levels, decoder_levels, shared=shared)
        if self.detach_teacher:
            self.require_taught_teachers(heads)
        return heads

    def vector_heads(self, levels: Levels) -> LevelHeads:
        """Heads of the feature comparison on E_1 ... E_{n-2} and D_1 ... D_{n-2}; none if its weight is 0.

        E_l and D_l share one unless `shared_heads` is False or their numbers of channels differ; the released code
        also shares those of UNETR.

        Raises:
            ValueError: if the network has fewer than four levels, or a detached teacher would never learn.
        """
        count = len(levels.strides)
        if self.vector_weight and count < FEWEST_LEVELS_FOR_VECTORS:
            raise ValueError(
                f"FeatureL2 needs a U-Net with at least {FEWEST_LEVELS_FOR_VECTORS} levels, so that the teacher has "
                f"a student; found {count}. Leave FeatureL2 out, or raise n_stages in the plans."
            )
        compared = range(1, count - 1) if self.vector_weight else range(0)
        shared = self.shared_heads is not False and not unequal_channels(levels, compared)
        if self.detach_teacher and compared and not shared:
            self.refuse_untaught(["the vectors"])
        return LevelHeads(lambda *place: VectorHead(levels.channels(*place)), compared, compared, shared=shared)

    def require_taught_teachers(self, heads: LevelHeads) -> None:
        """Refuses a detached teacher whose head no other term of the loss trains."""
        untaught = [] if self.teacher == "mean" else self.teachers_without_students_role(heads)
        if untaught:
            self.refuse_untaught(untaught)

    def refuse_untaught(self, untaught: Sequence[str]) -> NoReturn:
        """Refuses a detached teacher, naming the heads that would never learn."""
        raise ValueError(
            f"A detached teacher needs another term of the loss that trains its head; found none for "
            f"{', '.join(untaught)}. Set detach_teacher = False; with a deep teacher, shared_heads = True and "
            f"supervision_weight > 0 also suffice."
        )

    def teachers_without_students_role(self, heads: LevelHeads) -> list[str]:
        """The keys of teachers' heads that belong to no student and are not supervised."""
        encoder, decoder = list(heads.encoder_keys.values()), list(heads.decoder_keys.values())
        if self.teacher == "reversed":
            encoder, decoder = encoder[::-1], decoder[::-1]
        teachers = encoder[-1:] + (decoder[:1] if self.decoder_weight else [])
        trained = set(encoder[:-1] + (decoder if self.supervision_weight else decoder[1:]))
        return [key for key in dict.fromkeys(teachers) if key not in trained]

    def _build_loss(self) -> nn.Module:
        stock = super()._build_loss()
        return SelfDistillationLoss(stock, loss_of_one_output(stock), self.terms, self.padded_to)

    @property
    def plain_network(self) -> nn.Module:
        return self.distilling_network.plain

    @property
    def distilling_network(self) -> SelfDistillingNetwork:
        """The network with its heads, without the wrappers of DDP and torch.compile."""
        return cast(SelfDistillingNetwork, super().plain_network)

    def part_state(self) -> dict[str, Any]:
        return self.distilling_network.distillation_heads.state_dict()

    def load_part_state(self, state: dict[str, Any]) -> None:
        self.distilling_network.distillation_heads.load_state_dict(state)


def unequal_channels(levels: Levels, compared: Iterable[int]) -> list[int]:
    """The levels whose encoder and decoder features differ in their number of channels."""
    return [level for level in compared if levels.encoder_channels[level] != levels.decoder_channels[level]]


def require_equal_channels(levels: Levels, shared: Iterable[int]) -> None:
    """Refuses heads that two features with different numbers of channels would share."""
    different = unequal_channels(levels, sorted(shared))
    if different:
        level = different[0]
        raise ValueError(
            f"shared_heads = True needs features with equal numbers of channels; found "
            f"{levels.encoder_channels[level]} in the encoder and {levels.decoder_channels[level]} in the decoder at "
            f"level {level}. Leave shared_heads at None, or set it to False."
        )
