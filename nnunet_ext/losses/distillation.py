"""The divergence of a student from a teacher whose probabilities are known, as a term of the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_ext.losses.targets import OutputForm

TEACHER = "teacher"  # name of the extra target: probabilities (B, F, *spatial) without the background


@dataclass(frozen=True)
class TeacherTerm:
    """temperature^2 KL(teacher || student), the mean over the voxels that are not ignored.

    Attributes:
        form: of the target.
        temperature: softens both distributions, p^(1/temperature) divided by its sum.
    """

    form: OutputForm
    temperature: float = 2.0

    def __call__(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """See `LossTerm`."""
        divergence = teacher_kl(logits, extras[TEACHER], temperature=self.temperature, regions=self.form.regions)
        counted = self.form.target(target).counted
        if counted is None:
            return divergence.mean()
        return (divergence * counted[:, 0]).sum() / counted.sum().clamp_min(1)


class UnlabelledTeacherTerm:
    """temperature^2 KL(teacher || student), the mean over the voxels of images without labels; 0 without images.

    Args:
        student: images (B, channels, *spatial) to logits (B, C, *spatial).
        temperature: softens both distributions.
        regions: whether the outputs are regions.

    Attributes:
        images: (B, channels, *spatial) of the batch without labels; None in validation.
        probabilities: (B, F, *spatial), the teacher's, without the background; None without images.
    """

    def __init__(self, student: Callable[[Tensor], Tensor], temperature: float, *, regions: bool) -> None:
        self.student = student
        self.temperature = temperature
        self.regions = regions
        self.images: Tensor | None = None
        self.probabilities: Tensor | None = None

    def __call__(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """See `LossTerm`; logits and target are of the labelled images and are not used."""
        if self.images is None or self.probabilities is None:
            return logits.new_zeros(())
        found = self.student(self.images)
        return teacher_kl(found, self.probabilities, temperature=self.temperature, regions=self.regions).mean()


def teacher_kl(logits: Tensor, teacher: Tensor, *, temperature: float = 2.0, regions: bool = False) -> Tensor:
    """temperature^2 KL(teacher || student) in nats of each voxel, (B, *spatial) in fp32.

    The factor keeps the size of the gradient independent of the temperature. The sum is over classes, or over the
    Bernoulli distributions of regions.

    Args:
        logits: (B, C, *spatial) of the student.
        teacher: (B, F, *spatial), the teacher's probabilities without the background, which is what they leave of 1.
        temperature: above 0.
        regions: whether the C = F outputs are regions.

    Raises:
        ValueError: if the shapes do not fit.
    """
    expected = (logits.shape[0], logits.shape[1] - (not regions), *logits.shape[2:])
    if tuple(teacher.shape) != expected:
        raise ValueError(
            f"Logits of shape {tuple(logits.shape)} need teacher's probabilities of shape {expected}; found "
            f"{tuple(teacher.shape)}."
        )
    logits, teacher = logits.float() / temperature, teacher.float()
    if regions:
        both = torch.stack([teacher, 1 - teacher], dim=1)  # (B, 2, C, *spatial)
        log_student = torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=1)
    else:
        both = with_background(teacher)
        log_student = F.log_softmax(logits, dim=1)
    soft = softened(both, temperature)
    divergence = (-torch.special.entr(soft) - soft * log_student).sum(dim=1)
    return temperature**2 * (divergence.sum(dim=1) if regions else divergence)


def with_background(teacher: Tensor) -> Tensor:
    """Probabilities (B, F, *spatial) of the foreground classes with the background first: (B, F + 1, *spatial)."""
    return torch.cat([1 - teacher.sum(dim=1, keepdim=True), teacher], dim=1)


def softened(probabilities: Tensor, temperature: float) -> Tensor:
    """p^(1/temperature) divided by its sum over dimension 1; of logits, it is the softmax of logits / temperature.

    Rounding to half precision can leave numbers just below 0, which count as 0.
    """
    powers = probabilities.clamp_min(0) ** (1 / temperature)
    return powers / powers.sum(dim=1, keepdim=True)
