"""The consistency of student and teacher, by hand."""

import math

import pytest
import torch

from nnunet_ext.losses.consistency import TeacherConsistency, mean_where, relative_entropy

REST = {"epoch": torch.tensor(0), "extras": {}}


def test_entropy_is_a_share_of_its_maximum():
    classes = torch.tensor([[1 / 3, 1.0], [1 / 3, 0.0], [1 / 3, 0.0]])[None]
    assert relative_entropy(classes, regions=False).flatten().tolist() == pytest.approx([1, 0])
    regions = torch.tensor([[0.5, 0.0], [1.0, 0.25]])[None]
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert relative_entropy(regions, regions=True).flatten().tolist() == pytest.approx([1, 0, 0, quarter])


def test_the_mean_is_over_kept_voxels_and_all_outputs():
    values = torch.tensor([[1.0, 2.0, 9.0], [3.0, 4.0, 9.0]])[None]
    assert mean_where(values, torch.tensor([[[True, True, False]]])).item() == 2.5
    assert mean_where(values, torch.zeros(1, 1, 3, dtype=torch.bool)).item() == 0


def consistency(student, teacher, noise=0.0, regions=False):
    term = TeacherConsistency(lambda _: student, lambda _: teacher, regions=regions, noise=noise)
    term.images = torch.zeros(1, 1, 2)
    return term


def test_squared_differences_where_the_teacher_is_certain():
    """Teacher: (0.9, 0.1) with 0.469 bits and (0.5, 0.5) with 1 bit. Student: (0.5, 0.5) in both."""
    teacher = torch.log(torch.tensor([[0.9, 0.5], [0.1, 0.5]]))[None]
    term = consistency(torch.zeros(1, 2, 2), teacher)
    term.most_entropy = 0.75
    assert term(torch.zeros(1, 2, 2), None, **REST).item() == pytest.approx(0.4**2)
    term.most_entropy = 0.4
    assert term(torch.zeros(1, 2, 2), None, **REST).item() == 0


def test_only_the_student_has_a_gradient():
    student, teacher = (torch.randn(1, 2, 2, requires_grad=True) for _ in range(2))
    consistency(student, teacher)(student, None, **REST).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_student_and_teacher_see_other_noise_of_the_same_image():
    seen = []
    look = lambda images: seen.append(images) or torch.zeros(1, 2, 1000)  # noqa: E731
    term = TeacherConsistency(look, look, regions=False, noise=0.1)
    term.images = torch.full((1, 1, 1000), 7.0)
    term(torch.zeros(1, 2, 1000), None, **REST)
    assert not torch.equal(*seen)
    for images in seen:
        assert (images - 7).abs().max() <= 0.2 + 1e-5
        assert images.mean().item() == pytest.approx(7, abs=0.02)


def test_without_images_it_is_0():
    term = consistency(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2))
    term.images = None
    assert term(torch.zeros(1, 2, 2), None, **REST).item() == 0
