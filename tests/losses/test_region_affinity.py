"""Region affinity by hand."""

from math import sqrt

import pytest
import torch

from nnunet_ext.losses.distillation import TEACHER
from nnunet_ext.losses.region_affinity import RegionAffinityTerm
from nnunet_ext.losses.targets import OutputForm

EPOCH = torch.tensor(0)
LOGITS = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])  # two classes, three voxels: 1/2 everywhere


def value(form, target, teacher, logits=LOGITS):
    return RegionAffinityTerm(form)(
        logits, torch.tensor([target]), epoch=EPOCH, extras={TEACHER: torch.tensor(teacher)}
    )


def test_a_student_that_tells_nothing_apart():
    """Teacher: (1, 0) in the background, the mean of (0, 1) and (1/2, 1/2) in the foreground, which is (1/4, 3/4).

    Cosines: (1/4) / sqrt(10/16) = 1 / sqrt(10) of the teacher, 1 of the student.
    """
    found = value(OutputForm(), [[0.0, 1.0, 1.0]], [[[0.0, 1.0, 0.5]]])
    assert found.item() == pytest.approx((1 - 1 / sqrt(10)) ** 2, rel=1e-5)


def test_regions():
    """Teacher: (1, 0) in the first region, (0, 1) in the second: cosine 0."""
    found = value(OutputForm(regions=True), [[1.0, 0, 0], [0, 1.0, 0]], [[[1.0, 0, 0], [0, 1.0, 0]]])
    assert found.item() == pytest.approx(1)


def test_the_teacher_itself_has_no_loss_and_absent_regions_count_nothing():
    logits = torch.randn((1, 3, 20), generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = [[float(voxel % 2) for voxel in range(20)]]  # class 2 is absent
    own = logits.detach().softmax(dim=1)[:, 1:].tolist()
    loss = value(OutputForm(), labels, own, logits)
    assert loss.item() == pytest.approx(0, abs=1e-10)
    alone = value(OutputForm(), [[0.0] * 20], own, logits)
    assert alone.item() == 0
    (loss + alone).backward()
    assert torch.isfinite(logits.grad).all()


def test_ignored_voxels_do_not_count():
    """The third voxel would change the mean of the foreground."""
    found = value(OutputForm(ignore_label=2), [[0.0, 1.0, 2.0]], [[[0.0, 1.0, 0.0]]])
    assert found.item() == pytest.approx(1)
