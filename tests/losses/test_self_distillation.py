"""Divergences between levels: by hand, by loops over voxels, and by their gradients in closed form."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from nnunet_ext.losses.self_distillation import distillation_kl, mean_teacher_kl, on_grid


def logits_of(probabilities):
    """Logits (1, 2, voxels, 1) whose softmax is (p, 1 - p) at each voxel."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()]).float()[None, :, :, None]


def random_logits(*shape, seed=0):
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- the definition in loops ---


def probabilities_in_numpy(logits, temperature, regions):
    z = logits.double().numpy() / temperature
    if regions:
        return 1 / (1 + np.exp(-z))
    exponentials = np.exp(z - z.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def on_grid_by_loops(values, grid):
    """Each voxel of `grid` takes the mean over the voxels of `values` that it touches."""
    result = np.zeros((*values.shape[:2], *grid))
    for voxel in product(*map(range, grid)):
        touched = [
            range(i * size // target, max(i * size // target + 1, (i + 1) * size // target))
            for i, size, target in zip(voxel, values.shape[2:], grid, strict=True)
        ]
        inside = [values[(slice(None), slice(None), *source)] for source in product(*touched)]
        result[(slice(None), slice(None), *voxel)] = sum(inside) / len(inside)
    return result


def kl_by_loops(student, teacher, regions):
    """Sum over classes (or over the two outcomes of each region), mean over batch and voxels."""
    total, count = 0.0, 0
    for b, *voxel in product(range(len(student)), *map(range, student.shape[2:])):
        for c in range(student.shape[1]):
            t, s = teacher[(b, c, *voxel)], student[(b, c, *voxel)]
            total += t * math.log(t / s)
            if regions:
                total += (1 - t) * math.log((1 - t) / (1 - s))
        count += 1
    return total / count


def kl_by_definition(student_logits, teacher_logits, temperature, regions):
    grid = [min(sizes) for sizes in zip(student_logits.shape[2:], teacher_logits.shape[2:], strict=True)]
    student, teacher = (
        on_grid_by_loops(probabilities_in_numpy(logits, temperature, regions), grid)
        for logits in (student_logits, teacher_logits)
    )
    return temperature**2 * kl_by_loops(student, teacher, regions)


def mean_teacher_by_definition(student_logits, teachers_logits, temperature, regions):
    student = probabilities_in_numpy(student_logits, temperature, regions)
    teachers = [
        on_grid_by_loops(probabilities_in_numpy(logits, temperature, regions), student.shape[2:])
        for logits in teachers_logits
    ]
    return temperature**2 * kl_by_loops(student, sum(teachers) / len(teachers), regions)


# --- one grid ---


def test_two_voxels_by_hand():
    # Voxel 1: teacher (0.9, 0.1), student (0.5, 0.5):   0.9 ln 1.8 + 0.1 ln 0.2 = 0.529008 - 0.160944 = 0.368064
    # Voxel 2: teacher (0.5, 0.5), student (0.75, 0.25): 0.5 ln(2/3) + 0.5 ln 2 = 0.5 ln(4/3)         = 0.143841
    # Mean: 0.511905 / 2
    kl = distillation_kl(logits_of([0.5, 0.75]), logits_of([0.9, 0.5]), temperature=1)
    assert kl.shape == ()
    assert kl.item() == pytest.approx(0.2559525, abs=1e-6)


def test_the_teacher_comes_first():
    # KL((0.9, 0.1) || (0.5, 0.5)) = 0.368064 as above; the other way round
    # KL((0.5, 0.5) || (0.9, 0.1)) = 0.5 ln(0.5/0.9) + 0.5 ln(0.5/0.1) = 0.5 ln(25/9) = ln(5/3) = 0.510826
    confident, uncertain = logits_of([0.9]), logits_of([0.5])
    assert distillation_kl(uncertain, confident, temperature=1).item() == pytest.approx(0.368064, abs=1e-6)
    assert distillation_kl(confident, uncertain, temperature=1).item() == pytest.approx(math.log(5 / 3), abs=1e-6)


def test_the_temperature_softens_and_its_square_is_a_factor():
    # Logits (2 ln 9, 0) at T = 2 are (ln 9, 0): (0.9, 0.1). Against (0.5, 0.5): 2^2 * 0.368064 = 1.472257
    teacher = torch.tensor([2 * math.log(9), 0.0]).reshape(1, 2, 1, 1)
    assert distillation_kl(torch.zeros(1, 2, 1, 1), teacher, temperature=2).item() == pytest.approx(
        1.472257, abs=1e-5
    )


def test_the_temperature_is_three_unless_told():
    student, teacher = random_logits(1, 3, 2, 2), random_logits(1, 3, 2, 2, seed=1)
    assert distillation_kl(student, teacher) == distillation_kl(student, teacher, temperature=3)
    assert mean_teacher_kl(student, [teacher]) == mean_teacher_kl(student, [teacher], temperature=3)


@pytest.mark.parametrize("regions", [False, True])
def test_equal_logits_do_not_diverge(regions):
    logits = random_logits(2, 4, 3, 5)
    assert distillation_kl(logits, logits.clone(), regions=regions).item() == 0


def test_a_constant_added_to_all_classes_changes_nothing_but_does_to_regions():
    logits = random_logits(2, 3, 4, 4)
    assert distillation_kl(logits, logits + 5).item() == pytest.approx(0, abs=1e-6)
    assert distillation_kl(logits, logits + 5, regions=True).item() > 0.1


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 1, 3])
@pytest.mark.parametrize("shape", [(1, 2, 3, 5), (3, 4, 2, 3), (2, 3, 2, 4, 3)])
def test_the_sum_over_classes_and_the_mean_over_batch_and_voxels(shape, temperature, regions):
    student, teacher = random_logits(*shape), random_logits(*shape, seed=1)
    kl = distillation_kl(student, teacher, temperature=temperature, regions=regions)
    assert kl.item() == pytest.approx(kl_by_definition(student, teacher, temperature, regions), rel=1e-5)


def test_regions_add_up_by_hand():
    # sigmoid(ln 9) = 0.9 against sigmoid(0) = 0.5: the Bernoulli divergence is 0.368064.
    # sigmoid(0) = 0.5 against sigmoid(ln 3) = 0.75: 0.143841. One voxel, two regions: the sum, not the mean.
    teacher = torch.tensor([math.log(9), 0.0]).reshape(1, 2, 1, 1)
    student = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1)
    kl = distillation_kl(student, teacher, temperature=1, regions=True)
    assert kl.item() == pytest.approx(0.511905, abs=1e-6)


def test_one_region_is_a_softmax_of_two_classes():
    # softmax(z, 0) = (sigmoid(z), sigmoid(-z)), at any temperature
    student, teacher = random_logits(2, 1, 3, 3), random_logits(2, 1, 3, 3, seed=1)
    as_classes = [torch.cat([logits, torch.zeros_like(logits)], dim=1) for logits in (student, teacher)]
    torch.testing.assert_close(distillation_kl(student, teacher, regions=True), distillation_kl(*as_classes))


# --- gradients ---


def gradients(student, teacher, **options):
    student, teacher = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    distillation_kl(student, teacher, **options).backward()
    return student.grad, teacher.grad


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradients_of_student_and_teacher_in_closed_form(temperature):
    # With t, s = softmax(z / T), N voxels and k = sum_c t_c ln(t_c / s_c) of the voxel:
    #   d/dz_s = T^2 (s - t) / (T N),   d/dz_t = T^2 t (ln(t / s) - k) / (T N)
    student, teacher = random_logits(2, 3, 2, 2), random_logits(2, 3, 2, 2, seed=1)
    s, t = (probabilities_in_numpy(logits, temperature, False) for logits in (student, teacher))
    k = (t * np.log(t / s)).sum(axis=1, keepdims=True)
    voxels = 2 * 2 * 2
    of_student, of_teacher = gradients(student, teacher, temperature=temperature)
    np.testing.assert_allclose(of_student, temperature * (s - t) / voxels, atol=1e-6)
    np.testing.assert_allclose(of_teacher, temperature * t * (np.log(t / s) - k) / voxels, atol=1e-6)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("teacher_shape", [(1, 2, 4, 4), (1, 2, 1, 2)])
def test_the_gradient_reaches_a_teacher_of_another_grid(teacher_shape, regions):
    # Central differences of the definition in double precision.
    student, teacher = random_logits(1, 2, 2, 2), random_logits(*teacher_shape, seed=1)
    _, of_teacher = gradients(student, teacher, temperature=2, regions=regions)
    step = 1e-5
    for index in product(*map(range, teacher_shape)):
        beside = torch.zeros(teacher_shape, dtype=torch.float64)
        beside[index] = step
        above, below = (kl_by_definition(student, teacher.double() + x, 2, regions) for x in (beside, -beside))
        assert of_teacher[index].item() == pytest.approx((above - below) / (2 * step), abs=1e-5)


def test_a_detached_teacher_gets_no_gradient_and_the_student_the_same():
    student, teacher = random_logits(1, 3, 2, 2), random_logits(1, 3, 2, 2, seed=1)
    of_student, _ = gradients(student, teacher)
    detached = student.clone().requires_grad_()
    still = teacher.clone().requires_grad_()
    distillation_kl(detached, still.detach()).backward()
    assert still.grad is None
    assert torch.equal(detached.grad, of_student)


# --- two grids ---


def test_a_finer_teacher_gives_the_marginal_of_its_block_by_hand():
    # Teacher on 2x2: 0.9, 0.8, 0.6, 0.5, mean 0.7. Student on 1x1: 0.4.
    # 0.7 ln(0.7/0.4) + 0.3 ln(0.3/0.6) = 0.391731 - 0.207944 = 0.183787
    teacher = logits_of([0.9, 0.8, 0.6, 0.5]).reshape(1, 2, 2, 2)
    assert distillation_kl(logits_of([0.4]), teacher, temperature=1).item() == pytest.approx(0.183787, abs=1e-6)


def test_a_finer_student_is_averaged_over_the_teachers_voxel_by_hand():
    # Student on 2x2: 0.9, 0.8, 0.6, 0.5, mean 0.7. Teacher on 1x1: 0.4.
    # 0.4 ln(0.4/0.7) + 0.6 ln(0.6/0.3) = -0.223846 + 0.415888 = 0.192042
    student = logits_of([0.9, 0.8, 0.6, 0.5]).reshape(1, 2, 2, 2)
    assert distillation_kl(student, logits_of([0.4]), temperature=1).item() == pytest.approx(0.192042, abs=1e-6)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize(
    ("student_grid", "teacher_grid"),
    [
        ((4, 6), (2, 3)),
        ((2, 3), (4, 6)),
        ((4, 2), (4, 8)),
        ((2, 4, 4), (2, 2, 2)),  # stride (1, 2, 2)
        ((2, 2, 2), (4, 8, 2)),
        ((4, 2, 2), (2, 4, 2)),  # finer along one axis, coarser along another
        ((9, 3), (3, 3)),
    ],
)
def test_grids_that_differ_agree_with_the_loops(student_grid, teacher_grid, regions):
    student, teacher = random_logits(2, 3, *student_grid), random_logits(2, 3, *teacher_grid, seed=1)
    kl = distillation_kl(student, teacher, regions=regions)
    assert kl.item() == pytest.approx(kl_by_definition(student, teacher, 3, regions), rel=1e-5)


def test_a_finer_copy_of_the_same_logits_does_not_diverge():
    coarse = random_logits(1, 3, 2, 2)
    fine = coarse.repeat_interleave(2, dim=2).repeat_interleave(3, dim=3)
    assert distillation_kl(coarse, fine).item() == pytest.approx(0, abs=1e-6)
    assert distillation_kl(fine, coarse).item() == pytest.approx(0, abs=1e-6)


def test_on_grid_averages_and_repeats_by_hand():
    values = torch.tensor([[1.0, 3.0], [5.0, 7.0]])[None, None]
    assert on_grid(values, (1, 1)).tolist() == [[[[4]]]]
    assert on_grid(values, (2, 1)).tolist() == [[[[2], [6]]]]
    assert on_grid(values, (1, 4)).tolist() == [[[[3, 3, 5, 5]]]]  # averaged along one axis, repeated along the other
    assert on_grid(values, (2, 2)) is values


# --- the mean as teacher ---


def test_the_mean_of_two_teachers_by_hand():
    # (0.9, 0.1) and (0.5, 0.5): mean (0.7, 0.3), not the softmax of the mean logits, (0.75, 0.25).
    # Against (0.4, 0.6): 0.183787, as above.
    kl = mean_teacher_kl(logits_of([0.4]), [logits_of([0.9]), logits_of([0.5])], temperature=1)
    assert kl.item() == pytest.approx(0.183787, abs=1e-6)


def test_the_mean_of_two_teachers_of_regions_by_hand():
    # sigmoid(ln 9) = 0.9 and sigmoid(0) = 0.5: mean 0.7. Against 0.4: the same 0.183787.
    teachers = [torch.full((1, 1, 1, 1), math.log(9)), torch.zeros(1, 1, 1, 1)]
    student = torch.full((1, 1, 1, 1), math.log(0.4 / 0.6))
    kl = mean_teacher_kl(student, teachers, temperature=1, regions=True)
    assert kl.item() == pytest.approx(0.183787, abs=1e-6)


def test_one_teacher_is_its_own_mean():
    student, teacher = random_logits(2, 3, 2, 4), random_logits(2, 3, 2, 4, seed=1)
    torch.testing.assert_close(mean_teacher_kl(student, [teacher]), distillation_kl(student, teacher))


def test_a_coarser_teacher_is_repeated_by_hand():
    # Teacher on 1x1: 0.5. Student on 2x1: 0.5 and 0.75: divergences 0 and 0.5 ln(4/3), mean 0.0719205.
    # Averaging the student instead (0.625) would give 0.5 ln(0.25/(0.625*0.375)) = 0.0322693.
    kl = mean_teacher_kl(logits_of([0.5, 0.75]), [logits_of([0.5])], temperature=1)
    assert kl.item() == pytest.approx(0.0719205, abs=1e-6)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("student_grid", [(4, 8, 8), (4, 4, 4), (2, 2, 2)])
def test_teachers_of_all_grids_agree_with_the_loops(student_grid, regions):
    student = random_logits(2, 3, *student_grid)
    grids = [(4, 8, 8), (4, 4, 4), (2, 2, 2)]
    teachers = [random_logits(2, 3, *grid, seed=seed) for seed, grid in enumerate(grids, start=1)]
    kl = mean_teacher_kl(student, teachers, temperature=2, regions=regions)
    assert kl.item() == pytest.approx(mean_teacher_by_definition(student, teachers, 2, regions), rel=1e-5)


# --- numbers that computers have ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("teacher_grid", [(4, 4), (2, 2)])
def test_half_precision_logits_are_computed_in_single_precision(dtype, teacher_grid):
    # Nothing, not even z / T, is rounded to the logits' type: the same numbers given as fp32 give the same result.
    student = random_logits(2, 3, 4, 4).to(dtype)
    teacher = random_logits(2, 3, *teacher_grid, seed=1).to(dtype)
    kl = distillation_kl(student, teacher)
    assert kl.dtype == torch.float32
    assert kl.item() == distillation_kl(student.float(), teacher.float()).item()
    mean = mean_teacher_kl(student, [teacher, student])
    assert mean.dtype == torch.float32
    assert mean.item() == mean_teacher_kl(student.float(), [teacher.float(), student.float()]).item()


@pytest.mark.parametrize("regions", [False, True])
def test_a_low_temperature_does_not_overflow_half_precision(regions):
    # 10000 / 0.1 = 100000 is more than fp16 can hold (65504)
    student = torch.tensor([1e4, -1e4]).reshape(1, 2, 1, 1).half()
    kl = distillation_kl(student, student.clone(), temperature=0.1, regions=regions)
    assert kl.item() == 0


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("student_grid", "teacher_grid"), [((2, 2), (2, 2)), ((2, 2), (1, 1)), ((1, 1), (2, 2))])
@pytest.mark.parametrize("sign", [1, -1])
def test_saturated_logits_stay_finite_with_finite_gradients(sign, student_grid, teacher_grid, dtype, regions):
    def saturated(grid, sign):
        logits = torch.tensor([1e4, -1e4]).reshape(1, 2, 1, 1) * sign
        return logits.expand(1, 2, *grid).to(dtype).clone().requires_grad_()

    student, teacher = saturated(student_grid, 1), saturated(teacher_grid, sign)
    for kl in (
        distillation_kl(student, teacher, regions=regions),
        mean_teacher_kl(student, [teacher, student], regions=regions),
    ):
        assert kl.isfinite()
        of_student, of_teacher = torch.autograd.grad(kl, (student, teacher))
        assert of_student.isfinite().all()
        assert of_teacher.isfinite().all()


def test_a_students_probability_of_zero_in_a_whole_block_counts_as_the_smallest_number():
    # The student excludes what its teacher is confident of: 1 * (ln 1 - ln 2^-126) = 126 ln 2 = 87.3.
    # On one grid logarithms are exact: the difference of the student's logits, 2e4.
    confident = torch.tensor([1e4, -1e4]).reshape(1, 2, 1, 1)
    block = confident.expand(1, 2, 2, 2)
    assert distillation_kl(block, -confident, temperature=1).item() == pytest.approx(126 * math.log(2), rel=1e-5)
    assert distillation_kl(confident, -confident, temperature=1).item() == pytest.approx(2e4)


def test_a_block_of_students_that_are_confident_and_wrong_still_learns():
    # At T = 3 the right class has the probability e^-40 = 4e-18. The slope of KL by a logit is (s - t) / T, shared by
    # the four voxels of the block: times T^2 that is 3^2 (1 - 0) / 3 / 4 = 0.75.
    student = torch.tensor([60.0, -60.0]).reshape(1, 2, 1, 1).expand(1, 2, 2, 2).clone().requires_grad_()
    teacher = torch.tensor([-60.0, 60.0]).reshape(1, 2, 1, 1)
    distillation_kl(student, teacher, temperature=3.0).backward()
    assert student.grad[0, 0].flatten().tolist() == pytest.approx([0.75] * 4)


# --- refused ---


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    logits = random_logits(1, 2, 2, 2)
    message = f"temperature must be greater than 0; found {temperature}. The paper's is 3"
    with pytest.raises(ValueError, match=message):
        distillation_kl(logits, logits, temperature=temperature)
    with pytest.raises(ValueError, match=message):
        mean_teacher_kl(logits, [logits], temperature=temperature)


def test_grids_that_do_not_divide_are_refused():
    # (6, 4) and (4, 2) meet on (4, 2), and 6 is no multiple of 4
    message = r"differ by integer factors; found \(6, 4\) and \(4, 2\)\. Use a patch size"
    with pytest.raises(ValueError, match=message):
        distillation_kl(random_logits(1, 2, 6, 4), random_logits(1, 2, 4, 2))
    with pytest.raises(ValueError, match=message):
        mean_teacher_kl(random_logits(1, 2, 4, 2), [random_logits(1, 2, 6, 4)])
