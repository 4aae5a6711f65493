"""Divergences between the segmentations of two levels of a network (arXiv 2306.03271, Eqs. 2 and 4).

All are Kullback-Leibler divergences in nats with the teacher first: KL(t || s) = sum_c t_c log(t_c / s_c) >= 0. They
are computed in fp32, whatever the type of the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, prod

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_ext.losses.targets import probabilities_of

# The mean of a block can be 0, and its logarithm must be finite. The clamp is the smallest normal fp32 number,
# because there is no gradient below it: with a higher one a confident and wrong student would never learn.
SMALLEST_PROBABILITY = torch.finfo(torch.float32).tiny  # 1.2e-38
Grid = tuple[int, ...]  # a spatial shape


def distillation_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 3.0, regions: bool = False
) -> Tensor:
    """KL(teacher || student) x temperature^2, summed over classes (dim 1) and averaged over the rest (Eq. 4).

    The factor temperature^2 keeps the size of the gradient independent of the temperature; the authors' code has it,
    the paper's text does not. The gradient also flows into the teacher; pass `teacher_logits.detach()` to stop it.

    Args:
        student_logits: (B, C, *spatial).
        teacher_logits: (B, C, *spatial). If the two grids differ, the probabilities of the finer one are averaged
            over the voxels of the coarser one, which is the exact distribution of a label drawn from such a block.
        temperature: divides the logits of both before the softmax.
        regions: whether the C outputs are independent regions (sigmoid); the result is then the sum of their
            Bernoulli divergences.

    Returns:
        An fp32 scalar, at least 0; 0 for equal logits.

    Raises:
        ValueError: if the temperature is not positive, or one grid does not divide the other.
    """
    require_positive(temperature)
    grid = coarser_grid(student_logits, teacher_logits)
    student = log_probabilities(student_logits.float() / temperature, grid=grid, regions=regions)
    teacher = log_probabilities(teacher_logits.float() / temperature, grid=grid, regions=regions)
    return temperature**2 * kl_divergence(teacher, student)


def mean_teacher_kl(
    student_logits: Tensor, teachers_logits: Sequence[Tensor], *, temperature: float = 3.0, regions: bool = False
) -> Tensor:
    """`distillation_kl` with the mean probability of several teachers as the teacher, on the student's grid.

    Coarser teachers are repeated over the student's voxels, finer ones averaged.

    Args:
        student_logits: (B, C, *spatial).
        teachers_logits: (B, C, *spatial) per teacher, each on its own grid.
        temperature: see `distillation_kl`.
        regions: see `distillation_kl`.

    Returns:
        An fp32 scalar, at least 0.

    Raises:
        ValueError: if the temperature is not positive, or the grids do not differ by integer factors.
    """
    require_positive(temperature)
    grid = tuple(student_logits.shape[2:])
    student = log_probabilities(student_logits.float() / temperature, grid=grid, regions=regions)
    teachers = [
        log_probabilities(logits.float() / temperature, grid=grid, regions=regions) for logits in teachers_logits
    ]
    mean = torch.logsumexp(torch.stack(teachers), dim=0) - log(len(teachers))
    return temperature**2 * kl_divergence(mean, student)


def kl_divergence(log_teacher: Tensor, log_student: Tensor) -> Tensor:
    """KL(teacher || student) of log-probabilities (B, C, *spatial): sum over dim 1, mean over the rest; a scalar."""
    return (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1).mean()


def log_probabilities(logits: Tensor, *, grid: Grid, regions: bool) -> Tensor:
    """Log-probabilities of fp32 logits on a grid: (B, C, *grid); for regions (B, 2C, *grid), ln p then ln(1 - p)."""
    if tuple(logits.shape[2:]) == grid:
        if regions:
            return torch.cat([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=1)
        return F.log_softmax(logits, dim=1)
    probabilities = on_grid(probabilities_of(logits, regions=regions), grid)
    if regions:
        probabilities = torch.cat([probabilities, 1 - probabilities], dim=1)
    return probabilities.clamp_min(SMALLEST_PROBABILITY).log()


def on_grid(values: Tensor, grid: Grid) -> Tensor:
    """Values (B, C, *spatial) on another grid: averaged over blocks where it is coarser, repeated where it is finer.

    Raises:
        ValueError: if, along an axis, neither size divides the other.
    """
    shape = tuple(values.shape[2:])
    if any(max(size, target) % min(size, target) for size, target in zip(shape, grid, strict=True)):
        raise ValueError(
            f"The grids of two levels must differ by integer factors; found {shape} and {grid}. Use a patch size "
            f"that is a multiple of the network's strides."
        )
    block = [max(1, size // target) for size, target in zip(shape, grid, strict=True)]
    if prod(block) > 1:
        values = F.avg_pool2d(values, block) if len(block) == 2 else F.avg_pool3d(values, block)
    for axis, target in enumerate(grid, start=2):
        if values.shape[axis] != target:
            values = values.repeat_interleave(target // values.shape[axis], dim=axis)
    return values


def coarser_grid(first: Tensor, second: Tensor) -> Grid:
    """The coarser of two grids along each axis, to which both tensors can be averaged."""
    return tuple(min(sizes) for sizes in zip(first.shape[2:], second.shape[2:], strict=True))


def require_positive(temperature: float) -> None:
    """Refuses a temperature that is not positive."""
    if not temperature > 0:
        raise ValueError(f"The temperature must be greater than 0; found {temperature}. The paper's is 3.")
