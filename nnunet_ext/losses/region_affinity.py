"""Region affinity: a student tells regions apart as its teacher does (after Qin et al., TMI 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from nnunet_ext.losses.distillation import TEACHER, with_background
from nnunet_ext.losses.targets import OutputForm, probabilities_of


@dataclass(frozen=True)
class RegionAffinityTerm:
    """The mean of (A_ij of the teacher - A_ij of the student)^2 over pairs of regions that a patch has.

    A_ij is the cosine between the mean probabilities within region i and those within region j of the truth. The
    paper compares features; here it is outputs, because a teacher's features are not on the disk.

    Attributes:
        form: of the target.
    """

    form: OutputForm

    def __call__(self, logits: Tensor, target: Tensor, *, epoch: Tensor, extras: Mapping[str, Tensor]) -> Tensor:
        """See `LossTerm`."""
        truth, counted = self.form.truth(logits, target)
        if counted is not None:
            truth = truth * counted
        teacher = extras[TEACHER] if self.form.regions else with_background(extras[TEACHER])
        present = truth.flatten(start_dim=2).sum(dim=2) > 0
        pairs = (present[:, :, None] & present[:, None]).triu(diagonal=1)
        student = probabilities_of(logits, regions=self.form.regions)
        difference = affinities(teacher.float(), truth) - affinities(student, truth)
        return (difference.square() * pairs).sum() / pairs.sum().clamp_min(1)


def affinities(probabilities: Tensor, truth: Tensor) -> Tensor:
    """The cosines (B, C, C) between the mean probabilities of regions; 0 where a patch lacks one.

    Args:
        probabilities: (B, C, *spatial).
        truth: (B, C, *spatial), zeros and ones.
    """
    masks = truth.flatten(start_dim=2)
    sums = masks @ probabilities.flatten(start_dim=2).transpose(1, 2)  # (B, region, output)
    directions = F.normalize(sums, dim=2)  # a mean has the direction of its sum
    return directions @ directions.transpose(1, 2)
