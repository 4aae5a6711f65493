"""How much one level's segmentation disagrees with another's (arXiv 2306.03271, Eqs. 2 and 4).

All divergences are Kullback-Leibler, teacher first: KL(t || s) = sum_c t_c log(t_c / s_c) >= 0, in nats. They are
computed in fp32 whatever the logits are.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, prod

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_ext.losses.targets import probabilities_of

# An average over a block can be 0, its logarithm must not be infinite. The smallest number of fp32: below a floor
# there is no gradient, and a student that is sure and wrong would never learn.
SMALLEST_PROBABILITY = torch.finfo(torch.float32).tiny  # 1.2e-38
Grid = tuple[int, ...]  # a spatial shape


def distillation_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 3.0, regions: bool = False
) -> Tensor:
    """KL(teacher || student) x temperature^2, summed over classes (dim 1), mean over the rest.

    The factor keeps the gradient's size independent of the temperature; the authors' code has it, their text does
    not. The gradient reaches the teacher; give `teacher_logits.detach()` if it must not.

    Args:
        student_logits: (B, C, *spatial).
        teacher_logits: (B, C, *spatial). Where the two grids differ, probabilities of the finer one are averaged
            over the voxels of the coarser one, which is the exact distribution of a label drawn within such a block.
        temperature: softens both distributions, softmax(z / temperature).
        regions: the C outputs are independent regions (sigmoid): the sum of their Bernoulli divergences.

    Returns:
        A scalar, at least 0; 0 for equal logits.

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
    """The same with the mean of several teachers' probabilities as the teacher, on the student's grid.

    Coarser teachers are repeated over the student's voxels, finer ones averaged.

    Args:
        student_logits: (B, C, *spatial).
        teachers_logits: each (B, C, *spatial) on a grid of its own.
        temperature: as for `distillation_kl`.
        regions: as for `distillation_kl`.
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
    """What fp32 logits say on a grid, (B, C, *grid); for regions (B, 2C, *grid): inside, then outside."""
    if tuple(logits.shape[2:]) == grid:
        if regions:
            return torch.cat([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=1)
        return F.log_softmax(logits, dim=1)
    probabilities = on_grid(probabilities_of(logits, regions=regions), grid)
    if regions:
        probabilities = torch.cat([probabilities, 1 - probabilities], dim=1)
    return probabilities.clamp_min(SMALLEST_PROBABILITY).log()


def on_grid(values: Tensor, grid: Grid) -> Tensor:
    """Values (B, C, *spatial) averaged over blocks along axes where `grid` is coarser, repeated where it is finer.

    Raises:
        ValueError: if one does not divide the other.
    """
    shape = tuple(values.shape[2:])
    if any(max(size, target) % min(size, target) for size, target in zip(shape, grid, strict=True)):
        raise ValueError(
            f"Features of two levels must differ by whole factors; found the grids {shape} and {grid}. Give a patch "
            f"size that the strides of the network divide."
        )
    block = [max(1, size // target) for size, target in zip(shape, grid, strict=True)]
    if prod(block) > 1:
        values = F.avg_pool2d(values, block) if len(block) == 2 else F.avg_pool3d(values, block)
    for axis, target in enumerate(grid, start=2):
        if values.shape[axis] != target:
            values = values.repeat_interleave(target // values.shape[axis], dim=axis)
    return values


def coarser_grid(first: Tensor, second: Tensor) -> Grid:
    """The grid that both can be averaged to."""
    return tuple(min(sizes) for sizes in zip(first.shape[2:], second.shape[2:], strict=True))


def require_positive(temperature: float) -> None:
    """Refuses a temperature that softmax cannot divide by."""
    if not temperature > 0:
        raise ValueError(f"The temperature must be greater than 0; found {temperature}. The paper's is 3.")
