"""The loss of a self-distilling network, L = L_stock + eta L_sup + alpha KL_enc + beta KL_dec.

It is Eq. 5 of arXiv 2306.03271 with nnU-Net's loss in place of the main output's Dice and cross-entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_ext.losses.case_weighted import CaseWeighting
from nnunet_ext.losses.self_distillation import distillation_kl, mean_teacher_kl
from nnunet_ext.losses.targets import padded, target_on_grid

TeacherRule = Literal["deep", "reversed", "mean"]
SegmentationLoss = Callable[[Any, Any], Tensor]


class DistillationOutput(NamedTuple):
    """The output of a self-distilling network in training; lists begin with the finest level.

    Attributes:
        segmentation: the output of the plain network.
        encoder_logits: logits of the encoder levels with heads, each (B, C, *spatial).
        decoder_logits: logits of the decoder levels with heads, each (B, C, *spatial), the bottleneck last.
        encoder_vectors: vectors of the encoder features that are compared, each (B, 128).
        decoder_vectors: vectors of the decoder features that are compared, each (B, 128).
    """

    segmentation: Tensor | list[Tensor]
    encoder_logits: Sequence[Tensor]
    decoder_logits: Sequence[Tensor]
    encoder_vectors: Sequence[Tensor] = ()
    decoder_vectors: Sequence[Tensor] = ()


@dataclass(frozen=True)
class DistillationTerms:
    """The terms of the loss and their weights.

    Attributes:
        supervision: eta, weight of the supervision of the decoder's heads with the ground truth.
        encoder: alpha, weight of the encoder's divergence.
        decoder: beta, weight of the decoder's divergence.
        vectors: weight of the squared distance between features; 0 leaves it out.
        temperature: distillation temperature of teacher and students.
        teacher: which levels teach. "deep", as in the paper: the deepest encoder level before the bottleneck, and the
            decoder level at half resolution. "reversed": the shallowest encoder level, and the bottleneck. "mean":
            the mean probability of all levels.
        detach_teacher: whether to stop the gradient at the teacher; the authors do not.
        mean_supervision: whether to average the supervision over heads, which matches the scale of nnU-Net's deep
            supervision, instead of summing it as in the paper.
        regions: whether the outputs are overlapping regions.
    """

    supervision: float = 1.0
    encoder: float = 1.0
    decoder: float = 1.0
    vectors: float = 0.0
    temperature: float = 3.0
    teacher: TeacherRule = "deep"
    detach_teacher: bool = False
    mean_supervision: bool = True
    regions: bool = False


class SelfDistillationLoss(CaseWeighting):
    """nnU-Net's loss plus the terms of self-distillation; for a plain output, as in validation, nnU-Net's loss alone.

    Args:
        stock: the loss of the plain network's output.
        one_output: the same loss for a single tensor of logits and its target.
        terms: the terms of self-distillation and their weights.
        multiple: what the network pads images to a multiple of, per axis; logits of coarser levels cover the padding,
            which is background. Empty if it does not pad.
    """

    def __init__(
        self,
        stock: SegmentationLoss,
        one_output: SegmentationLoss,
        terms: DistillationTerms,
        multiple: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.multiple = tuple(multiple)
        self.stock = stock
        self.one_output = one_output
        self.terms = terms

    def forward(self, output: Any, target: Any) -> Tensor:
        """The loss, a scalar.

        Args:
            output: a `DistillationOutput`, or the output of the plain network.
            target: nnU-Net's target: labels (B, 1, *spatial) or regions (B, regions, *spatial); a list of them with
                deep supervision.
        """
        if not isinstance(output, DistillationOutput):
            return self.stock(output, target)
        terms = self.terms
        loss = self.stock(output.segmentation, target)
        if terms.supervision:
            finest = target[0] if isinstance(target, list) else target
            loss = loss + terms.supervision * self.supervision(output.decoder_logits, finest)
        if terms.encoder:
            loss = loss + terms.encoder * self.by_case(partial(self.divergence, teacher=-1), output.encoder_logits)
        if terms.decoder:
            loss = loss + terms.decoder * self.by_case(partial(self.divergence, teacher=0), output.decoder_logits)
        if terms.vectors:
            loss = loss + terms.vectors * self.by_case(partial(self.distance, teacher=-1), output.encoder_vectors)
            loss = loss + terms.vectors * self.by_case(partial(self.distance, teacher=0), output.decoder_vectors)
        return loss

    def supervision(self, decoder_logits: Sequence[Tensor], target: Tensor) -> Tensor:
        """The supervision of all heads with the ground truth, each on the head's own grid (Eq. 3); a scalar."""
        total = torch.stack(
            [self.one_output(logits, self.target_of(logits, target)) for logits in decoder_logits]
        ).sum()
        return total / len(decoder_logits) if self.terms.mean_supervision else total

    def target_of(self, logits: Tensor, target: Tensor) -> Tensor:
        """The target on the grid of a head's logits."""
        if logits.shape[2:] == target.shape[2:] or not self.multiple:
            return target_on_grid(target, logits)
        return target_on_grid(padded(target, self.multiple), logits)

    def divergence(self, logits: Sequence[Tensor], *, teacher: int) -> Tensor:
        """Sum over students of KL(teacher || student) x T^2 (Eq. 4).

        Args:
            logits: logits of the encoder's or the decoder's levels, the finest first.
            teacher: position of the paper's teacher, 0 or -1.
        """
        options: dict[str, Any] = {"temperature": self.terms.temperature, "regions": self.terms.regions}
        if self.terms.teacher == "mean":
            teachers = [self.taught_by(level) for level in logits]
            return torch.stack([mean_teacher_kl(student, teachers, **options) for student in logits]).sum()
        master, students = self.roles(logits, teacher=teacher)
        return torch.stack([distillation_kl(student, master, **options) for student in students]).sum()

    def distance(self, vectors: Sequence[Tensor], *, teacher: int) -> Tensor:
        """Sum over students of the mean squared difference between their vector and the teacher's, in fp32."""
        master, students = self.roles(vectors, teacher=teacher)
        return torch.stack([F.mse_loss(student.float(), master.float()) for student in students]).sum()

    def roles(self, levels: Sequence[Tensor], *, teacher: int) -> tuple[Tensor, list[Tensor]]:
        """The teacher and its students."""
        if self.terms.teacher == "reversed":
            teacher = -1 - teacher  # swaps first and last
        students = list(levels)
        master = students.pop(teacher)
        return self.taught_by(master), students

    def taught_by(self, teacher: Tensor) -> Tensor:
        """The teacher, detached if its gradient is to be stopped."""
        return teacher.detach() if self.terms.detach_teacher else teacher
