"""The whole loss of a self-distilling network: L = L_stock + eta L_sup + alpha KL_enc + beta KL_dec (Eq. 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_ext.losses.self_distillation import distillation_kl, mean_teacher_kl
from nnunet_ext.losses.targets import target_on_grid

TeacherRule = Literal["deep", "reversed", "mean"]
SegmentationLoss = Callable[[Any, Any], Tensor]


class DistillationOutput(NamedTuple):
    """What a self-distilling network returns in training; lists hold the finest level first.

    Attributes:
        segmentation: what the plain network returns.
        encoder_logits: of the encoder's levels that take part, each (B, C, *spatial).
        decoder_logits: of the decoder's, the bottleneck last.
        encoder_vectors: of the encoder's features that are compared themselves, each (B, 128).
        decoder_vectors: of the decoder's.
    """

    segmentation: Tensor | list[Tensor]
    encoder_logits: Sequence[Tensor]
    decoder_logits: Sequence[Tensor]
    encoder_vectors: Sequence[Tensor] = ()
    decoder_vectors: Sequence[Tensor] = ()


@dataclass(frozen=True)
class DistillationTerms:
    """Which terms the loss has.

    Attributes:
        supervision: eta, the weight of the ground truth at the decoder's heads.
        encoder: alpha, the weight of the encoder's divergence.
        decoder: beta, the weight of the decoder's.
        vectors: the weight of the distance of features (0: none).
        temperature: softens teacher and students.
        teacher: "deep" (the paper's): the deepest encoder feature before the bottleneck, the decoder feature at half
            resolution. "reversed": the shallowest encoder feature, the bottleneck. "mean": the mean of all.
        detach_teacher: stop the gradient at the teacher. The authors do not.
        mean_supervision: the mean over heads, on the scale of nnU-Net's own deep supervision; False: the paper's sum.
        regions: the outputs are regions.
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


class SelfDistillationLoss(nn.Module):
    """nnU-Net's loss plus the terms of self-distillation; of a plain output, as in validation, nnU-Net's loss alone.

    Args:
        stock: the loss of what the plain network returns.
        one_output: the same loss of a single tensor of logits and its target.
        terms: weights of the others.
    """

    def __init__(self, stock: SegmentationLoss, one_output: SegmentationLoss, terms: DistillationTerms) -> None:
        super().__init__()
        self.stock = stock
        self.one_output = one_output
        self.terms = terms

    def forward(self, output: Any, target: Any) -> Tensor:
        """A scalar.

        Args:
            output: a `DistillationOutput`, or what the plain network returns.
            target: nnU-Net's: (B, 1, *spatial) labels or (B, regions, *spatial); with deep supervision a list.
        """
        if not isinstance(output, DistillationOutput):
            return self.stock(output, target)
        terms = self.terms
        loss = self.stock(output.segmentation, target)
        if terms.supervision:
            finest = target[0] if isinstance(target, list) else target
            loss = loss + terms.supervision * self.supervision(output.decoder_logits, finest)
        if terms.encoder:
            loss = loss + terms.encoder * self.divergence(output.encoder_logits, teacher=-1)
        if terms.decoder:
            loss = loss + terms.decoder * self.divergence(output.decoder_logits, teacher=0)
        if terms.vectors:
            loss = loss + terms.vectors * self.distance(output.encoder_vectors, teacher=-1)
            loss = loss + terms.vectors * self.distance(output.decoder_vectors, teacher=0)
        return loss

    def supervision(self, decoder_logits: Sequence[Tensor], target: Tensor) -> Tensor:
        """The ground truth at each head, on the head's own grid (Eq. 3)."""
        total = torch.stack(
            [self.one_output(logits, target_on_grid(target, logits)) for logits in decoder_logits]
        ).sum()
        return total / len(decoder_logits) if self.terms.mean_supervision else total

    def divergence(self, logits: Sequence[Tensor], *, teacher: int) -> Tensor:
        """Sum over students of KL(teacher || student) x T^2 (Eq. 4).

        Args:
            logits: of one side, the finest level first.
            teacher: position of the paper's teacher, the first or the last.
        """
        options: dict[str, Any] = {"temperature": self.terms.temperature, "regions": self.terms.regions}
        if self.terms.teacher == "mean":
            teachers = [self.taught_by(level) for level in logits]
            return torch.stack([mean_teacher_kl(student, teachers, **options) for student in logits]).sum()
        master, students = self.roles(logits, teacher=teacher)
        return torch.stack([distillation_kl(student, master, **options) for student in students]).sum()

    def distance(self, vectors: Sequence[Tensor], *, teacher: int) -> Tensor:
        """Sum over students of the mean squared difference of vectors (B, 128), in fp32."""
        master, students = self.roles(vectors, teacher=teacher)
        return torch.stack([F.mse_loss(student.float(), master.float()) for student in students]).sum()

    def roles(self, levels: Sequence[Tensor], *, teacher: int) -> tuple[Tensor, list[Tensor]]:
        """The teacher and its students."""
        if self.terms.teacher == "reversed":
            teacher = -1 - teacher  # from the first to the last and back
        students = list(levels)
        master = students.pop(teacher)
        return self.taught_by(master), students

    def taught_by(self, teacher: Tensor) -> Tensor:
        """The teacher as its students see it."""
        return teacher.detach() if self.terms.detach_teacher else teacher
