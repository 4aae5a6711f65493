"""The divergence from a teacher's probabilities: values and gradients by hand."""

from math import log, sqrt

import pytest
import torch

from nnunet_ext.losses.distillation import TEACHER, TeacherTerm, UnlabelledTeacherTerm, softened, teacher_kl
from nnunet_ext.losses.self_distillation import distillation_kl
from nnunet_ext.losses.targets import OutputForm

EPOCH = torch.tensor(0)


def voxel(*values):
    """(1, C, 1) in double precision."""
    return torch.tensor(values, dtype=torch.float64)[None, :, None]


def test_kl_by_hand():
    """Teacher 3/4, 1/4; student 1/2, 1/2: 3/4 ln(3/2) + 1/4 ln(1/2)."""
    found = teacher_kl(voxel(0, 0), voxel(0.25), temperature=1)
    assert found.item() == pytest.approx(0.75 * log(1.5) + 0.25 * log(0.5), rel=1e-5)


def test_temperature_2_takes_square_roots_and_multiplies_by_4():
    """Teacher 0.81, 0.09, 0.1 becomes 0.9 : 0.3 : sqrt(0.1)."""
    total = 0.9 + 0.3 + sqrt(0.1)
    soft = [0.9 / total, 0.3 / total, sqrt(0.1) / total]
    expected = 4 * sum(p * log(3 * p) for p in soft)  # the student's are 1/3
    assert teacher_kl(voxel(0, 0, 0), voxel(0.09, 0.1), temperature=2).item() == pytest.approx(expected, rel=1e-5)


def test_regions_have_a_divergence_each():
    """Teacher 3/4 and 1; student 1/2 and 1/2: the one above plus ln 2."""
    found = teacher_kl(voxel(0, 0), voxel(0.75, 1), temperature=1, regions=True)
    assert found.item() == pytest.approx(0.75 * log(1.5) + 0.25 * log(0.5) + log(2), rel=1e-5)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_it_is_that_of_two_networks(regions, temperature):
    """Probabilities p^(1/T) of a softmax are the softmax of logits / T; likewise for a sigmoid."""
    student, teacher = torch.randn((2, 2, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    probabilities = teacher.sigmoid() if regions else teacher.softmax(dim=1)[:, 1:]
    found = teacher_kl(student, probabilities, temperature=temperature, regions=regions).mean()
    expected = distillation_kl(student, teacher, temperature=temperature, regions=regions)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_the_gradient_is_t_times_the_difference_of_the_softened(temperature):
    """d/dz T^2 KL = T^2 (softmax(z / T) - p_T) / T."""
    logits = torch.tensor([[0.5, -1.0, 2.0]])[..., None].requires_grad_()
    teacher = torch.tensor([[0.7, 0.2, 0.1]])[..., None]
    teacher_kl(logits, teacher[:, 1:], temperature=temperature).sum().backward()
    soft = softened(teacher, temperature)
    expected = temperature * ((logits.detach() / temperature).softmax(dim=1) - soft)
    torch.testing.assert_close(logits.grad, expected, rtol=1e-4, atol=1e-6)


def test_the_gradient_keeps_its_size_at_high_temperatures():
    """For T to infinity it is that of half the squared distance of centred logits, divided by C."""
    logits, teacher = torch.tensor([[0.3, -0.3]])[..., None], torch.tensor([[-0.2, 0.2]])[..., None]
    logits.requires_grad_()
    teacher_kl(logits, teacher.softmax(dim=1)[:, 1:], temperature=1000.0).sum().backward()
    torch.testing.assert_close(logits.grad, (logits.detach() - teacher) / 2, rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("teacher", [[0.0, 0.0], [1.0, 0.0], [0.5, 0.5005]])
def test_certain_and_rounded_teachers_are_finite(teacher):
    """Half precision can make the sum of the foreground a little more than 1."""
    logits = torch.tensor([[40.0, -40.0, 0.0]])[..., None].requires_grad_()
    value = teacher_kl(logits, torch.tensor([teacher])[..., None], temperature=2)
    value.sum().backward()
    assert value.item() >= 0
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("regions", [False, True])
def test_ignored_voxels_do_not_count(regions):
    """Two voxels, of which the second is ignored; the value is that of the first."""
    logits = torch.tensor([[[0.0, 9.0], [0.0, -9.0]]])
    teacher = torch.tensor([[[0.75, 0.0], [1.0, 0.0]]]) if regions else torch.tensor([[[0.25, 1.0]]])
    target = torch.tensor([[[0, 0], [1, 0], [0, 1]]]) if regions else torch.tensor([[[0, 7]]])
    term = TeacherTerm(OutputForm(regions, 7), temperature=1)
    found = term(logits, target.float(), epoch=EPOCH, extras={TEACHER: teacher})
    expected = 0.75 * log(1.5) + 0.25 * log(0.5) + (log(2) if regions else 0)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    ignored = torch.full_like(target, 7) if not regions else torch.ones_like(target)
    assert term(logits, ignored.float(), epoch=EPOCH, extras={TEACHER: teacher}) == 0


def test_probabilities_of_another_number_of_classes_are_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 2, 4\); found \(1, 3, 4\)"):
        teacher_kl(torch.zeros(1, 3, 4), torch.zeros(1, 3, 4))


# --- images without labels ---


def unlabelled_term(images, teacher, *, temperature=1.0, regions=False):
    """The term of a student whose logits are the images."""
    term = UnlabelledTeacherTerm(lambda logits: logits, temperature, regions=regions)
    term.images, term.probabilities = images, teacher
    return term(torch.zeros(1), torch.zeros(1), epoch=EPOCH, extras={})


def test_on_images_without_labels_it_is_the_mean_over_all_voxels():
    """Two voxels: the divergence by hand above, and ln 2 where the teacher is certain of the foreground."""
    teacher = torch.tensor([[[0.25, 1.0]]])
    found = unlabelled_term(torch.zeros(1, 2, 2), teacher)
    assert found.item() == pytest.approx((0.75 * log(1.5) + 0.25 * log(0.5) + log(2)) / 2, rel=1e-5)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_student_that_says_what_the_teacher_says_has_no_loss_and_no_gradient(temperature, regions):
    logits = torch.randn((2, 3, 4, 4), generator=torch.Generator().manual_seed(0)).requires_grad_()
    teacher = (logits.sigmoid() if regions else logits.softmax(dim=1)[:, 1:]).detach()
    found = unlabelled_term(logits, teacher, temperature=temperature, regions=regions)
    found.backward()
    assert found.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.abs().max() < 1e-6


def test_without_images_the_term_is_0():
    assert unlabelled_term(None, None).item() == 0
