"""The whole loss term by term, each against its definition written out here."""

import pytest
import torch
import torch.nn.functional as F

from nnunet_ext.losses.self_distillation_objective import (
    DistillationOutput,
    DistillationTerms,
    SelfDistillationLoss,
)

CLASSES = 3
NOTHING = {"supervision": 0.0, "encoder": 0.0, "decoder": 0.0, "vectors": 0.0}


def random(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def one_output(logits, target):
    return F.cross_entropy(logits, target[:, 0].long())


def stock(output, target):
    """As nnU-Net's deep supervision: the finest output counts most."""
    if isinstance(output, list):
        weights = (0.75, 0.25)
        return sum(w * one_output(o, t) for w, o, t in zip(weights, output, target, strict=True))
    return one_output(output, target)


def random_target(grid, seed=0):
    return torch.randint(CLASSES, (2, 1, *grid), generator=torch.Generator().manual_seed(seed)).float()


def random_output(grids, *, deep_supervision=True):
    """Of a network of `len(grids)` levels: E_0 ... E_{n-2} and D_1 ... D_{n-1}, with vectors."""
    levels = len(grids)
    segmentation = [random(2, CLASSES, *grid, seed=level) for level, grid in enumerate(grids[:2])]
    return DistillationOutput(
        segmentation if deep_supervision else segmentation[0],
        [random(2, CLASSES, *grids[level], seed=10 + level) for level in range(levels - 1)],
        [random(2, CLASSES, *grids[level], seed=20 + level) for level in range(1, levels)],
        [random(2, 5, seed=30 + level) for level in range(1, levels - 1)],
        [random(2, 5, seed=40 + level) for level in range(1, levels - 1)],
    )


FULL = [(8, 8)] * 4  # all heads at the image's resolution
NATIVE = [(8, 8), (4, 4), (2, 2), (1, 1)]


def loss_of(output, target, **terms):
    return SelfDistillationLoss(stock, one_output, DistillationTerms(**{**NOTHING, **terms}))(output, target)


def targets(grids=NATIVE):
    return [random_target((8, 8)), random_target(grids[1])]


def kl(teacher, student, temperature=3.0):
    """KL(teacher || student) on one grid, times T^2."""
    log_s = F.log_softmax(student / temperature, dim=1)
    log_t = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(dim=1).mean()


def added(output, target, **terms):
    """What the terms add to the stock loss."""
    return (loss_of(output, target, **terms) - stock(output.segmentation, target)).item()


# --- which terms there are ---


def test_the_defaults_are_the_papers():
    terms = DistillationTerms()
    assert (terms.supervision, terms.encoder, terms.decoder, terms.vectors) == (1, 1, 1, 0)
    assert (terms.temperature, terms.teacher, terms.detach_teacher) == (3, "deep", False)


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_without_weights_it_is_the_stock_loss_exactly(deep_supervision):
    output, target = random_output(NATIVE, deep_supervision=deep_supervision), targets()
    target = target if deep_supervision else target[0]
    assert torch.equal(loss_of(output, target), stock(output.segmentation, target))


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_of_a_plain_output_as_in_validation_it_is_the_stock_loss_alone(deep_supervision):
    plain = random_output(NATIVE, deep_supervision=deep_supervision).segmentation
    target = targets() if deep_supervision else targets()[0]
    loss = SelfDistillationLoss(stock, one_output, DistillationTerms())
    assert torch.equal(loss(plain, target), stock(plain, target))


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_supervision_is_the_loss_of_each_decoder_head_on_its_own_grid(deep_supervision):
    output, target = random_output(NATIVE, deep_supervision=deep_supervision), targets()
    # A voxel of half resolution covers voxels 0 and 1: the nearest to its centre, 1. Of 1/4: 0..3, 2. Of 1/8: 4.
    d1, d2, d3 = output.decoder_logits
    finest = target[0]
    heads = (
        one_output(d1, finest[..., 1::2, 1::2])
        + one_output(d2, finest[..., 2::4, 2::4])
        + one_output(d3, finest[..., 4::8, 4::8])
    ).item()
    given = target if deep_supervision else finest
    assert added(output, given, supervision=1, mean_supervision=False) == pytest.approx(heads, rel=1e-5)
    assert added(output, given, supervision=1, mean_supervision=True) == pytest.approx(heads / 3, rel=1e-5)
    assert added(output, given, supervision=0.5, mean_supervision=False) == pytest.approx(heads / 2, rel=1e-5)


def test_the_encoders_term_alone():
    # The teacher is E_2, the deepest before the bottleneck; its students are E_0 and E_1.
    output, target = random_output(FULL), targets(FULL)
    e0, e1, e2 = output.encoder_logits
    expected = (kl(e2, e0) + kl(e2, e1)).item()
    assert added(output, target, encoder=1) == pytest.approx(expected, rel=1e-5)
    assert added(output, target, encoder=0.25) == pytest.approx(expected / 4, rel=1e-5)


def test_the_decoders_term_alone():
    # The teacher is D_1, at half resolution; its students are D_2 and the bottleneck D_3.
    output, target = random_output(FULL), targets(FULL)
    d1, d2, d3 = output.decoder_logits
    expected = (kl(d1, d2) + kl(d1, d3)).item()
    assert added(output, target, decoder=1) == pytest.approx(expected, rel=1e-5)
    assert added(output, target, decoder=2) == pytest.approx(2 * expected, rel=1e-5)


def test_features_on_their_own_grids_meet_on_the_coarser_one():
    # Probabilities, not logits, are averaged, after softening: of the students in the encoder, of the teacher in
    # the decoder.
    output, target = random_output(NATIVE), targets()
    e0, e1, e2 = (F.softmax(logits / 3, dim=1) for logits in output.encoder_logits)
    d1, d2, d3 = (F.softmax(logits / 3, dim=1) for logits in output.decoder_logits)

    def divergence(t, s):
        return 9 * (t * (t / s).log()).sum(dim=1).mean()

    encoder = divergence(e2, F.avg_pool2d(e0, 4)) + divergence(e2, F.avg_pool2d(e1, 2))
    decoder = divergence(F.avg_pool2d(d1, 2), d2) + divergence(F.avg_pool2d(d1, 4), d3)
    assert added(output, target, encoder=1) == pytest.approx(encoder.item(), rel=1e-5)
    assert added(output, target, decoder=1) == pytest.approx(decoder.item(), rel=1e-5)


def test_the_distance_of_vectors_alone():
    # Mean over the batch and the 5 numbers; teachers are E_2 and D_1, students E_1 and D_2. The same weight for both.
    output, target = random_output(NATIVE), targets()
    (e1, e2), (d1, d2) = output.encoder_vectors, output.decoder_vectors
    expected = (((e1 - e2) ** 2).sum() / 10 + ((d2 - d1) ** 2).sum() / 10).item()
    assert added(output, target, vectors=0.5) == pytest.approx(0.5 * expected, rel=1e-5)


def test_all_terms_add_up():
    output, target = random_output(NATIVE), targets()
    weights = {"supervision": 0.5, "encoder": 2.0, "decoder": 3.0, "vectors": 0.1}
    alone = sum(added(output, target, **{term: weight}) for term, weight in weights.items())
    assert added(output, target, **weights) == pytest.approx(alone, rel=1e-5)


def test_the_temperature_reaches_both_sides():
    output, target = random_output(FULL), targets(FULL)
    (e0, e1, e2), (d1, d2, d3) = output.encoder_logits, output.decoder_logits
    expected = (kl(e2, e0, 2) + kl(e2, e1, 2) + kl(d1, d2, 2) + kl(d1, d3, 2)).item()
    assert added(output, target, encoder=1, decoder=1, temperature=2) == pytest.approx(expected, rel=1e-5)


def test_regions_are_compared_by_their_bernoulli_divergences():
    output, target = random_output(FULL), targets(FULL)

    def divergence(teacher, student):
        t, s = torch.sigmoid(teacher / 3), torch.sigmoid(student / 3)
        return 9 * (t * (t / s).log() + (1 - t) * ((1 - t) / (1 - s)).log()).sum(dim=1).mean()

    e0, e1, e2 = output.encoder_logits
    expected = (divergence(e2, e0) + divergence(e2, e1)).item()
    assert added(output, target, encoder=1, regions=True) == pytest.approx(expected, rel=1e-4)


# --- who teaches ---


def test_reversed_teachers_are_the_first_encoder_level_and_the_bottleneck():
    # E_0 teaches E_1 and E_2; the bottleneck D_3 teaches D_1 and D_2.
    output, target = random_output(FULL), targets(FULL)
    (e0, e1, e2), (d1, d2, d3) = output.encoder_logits, output.decoder_logits
    encoder, decoder = (kl(e0, e1) + kl(e0, e2)).item(), (kl(d3, d1) + kl(d3, d2)).item()
    assert added(output, target, encoder=1, teacher="reversed") == pytest.approx(encoder, rel=1e-5)
    assert added(output, target, decoder=1, teacher="reversed") == pytest.approx(decoder, rel=1e-5)


def test_reversed_teachers_of_vectors():
    # With four levels: E_1 teaches E_2 and D_2 teaches D_1; a squared distance is the same both ways.
    output, target = random_output([*NATIVE, (1, 1)]), targets()
    (e1, e2, e3), (d1, d2, d3) = output.encoder_vectors, output.decoder_vectors
    pairs = [(e2, e1), (e3, e1), (d1, d3), (d2, d3)]
    expected = sum(((a - b) ** 2).mean() for a, b in pairs).item()
    assert added(output, target, vectors=1, teacher="reversed") == pytest.approx(expected, rel=1e-5)


def test_the_mean_of_all_levels_teaches_each_of_them():
    output, target = random_output(FULL), targets(FULL)
    for levels, side in ((output.encoder_logits, "encoder"), (output.decoder_logits, "decoder")):
        probabilities = [F.softmax(logits / 3, dim=1) for logits in levels]
        mean = sum(probabilities) / 3
        expected = sum(9 * (mean * (mean / s).log()).sum(dim=1).mean() for s in probabilities).item()
        assert added(output, target, teacher="mean", **{side: 1}) == pytest.approx(expected, rel=1e-4)


# --- gradients ---


def gradients_of(levels, loss):
    return torch.autograd.grad(loss, list(levels), allow_unused=True, retain_graph=True)


def requiring_gradients(output):
    return DistillationOutput(*([tensor.requires_grad_() for tensor in part] for part in output))


@pytest.mark.parametrize(
    ("rule", "encoder_teacher", "decoder_teacher"), [("deep", 2, 0), ("reversed", 0, 2)], ids=["deep", "reversed"]
)
def test_the_gradient_reaches_the_teacher_unless_it_is_detached(rule, encoder_teacher, decoder_teacher):
    output, target = requiring_gradients(random_output(FULL)), targets(FULL)
    for detach in (False, True):
        loss = loss_of(output, target, encoder=1, decoder=1, teacher=rule, detach_teacher=detach)
        for levels, teacher in ((output.encoder_logits, encoder_teacher), (output.decoder_logits, decoder_teacher)):
            reached = [gradient is not None for gradient in gradients_of(levels, loss)]
            students = [level != teacher for level in range(3)]
            assert reached == (students if detach else [True] * 3)


def test_a_detached_mean_teaches_levels_that_still_learn():
    # The student's gradient at a fixed mean m: T^2 (s - m) / (T N), N = 2 * 64 voxels
    output, target = requiring_gradients(random_output(FULL)), targets(FULL)
    loss = loss_of(output, target, encoder=1, teacher="mean", detach_teacher=True)
    probabilities = [F.softmax(logits.detach() / 3, dim=1) for logits in output.encoder_logits]
    mean = sum(probabilities) / 3
    for gradient, s in zip(gradients_of(output.encoder_logits, loss), probabilities, strict=True):
        torch.testing.assert_close(gradient, 3 * (s - mean) / 128)


def test_a_detached_teacher_of_vectors():
    output, target = requiring_gradients(random_output(NATIVE)), targets()
    loss = loss_of(output, target, vectors=1, detach_teacher=True)
    levels = [*output.encoder_vectors, *output.decoder_vectors]
    reached = [gradient is not None for gradient in gradients_of(levels, loss)]
    assert reached == [True, False, False, True]  # E_1, E_2 (teacher), D_1 (teacher), D_2


def test_vectors_in_half_precision_are_compared_in_single_precision():
    # 300^2 = 90000 is more than fp16 can hold (65504)
    far, near = torch.full((2, 5), 300.0).half(), torch.zeros(2, 5).half()
    output = random_output(NATIVE)._replace(encoder_vectors=[far, near], decoder_vectors=[near, near])
    assert added(output, targets(), vectors=1) == pytest.approx(90000)


@pytest.mark.parametrize("term", ["encoder", "decoder", "vectors"])
def test_the_divergences_of_each_sample_count_by_the_weight_of_its_case(term):
    """The first sample of two has the weight 0.5, the second 0."""
    output, target = random_output(FULL), targets(FULL)
    loss = SelfDistillationLoss(stock, one_output, DistillationTerms(**{**NOTHING, term: 1.0}))
    loss.case_weights = (0.5, 0)
    found = loss(output, target) - stock(output.segmentation, target)
    first = DistillationOutput(*([level[:1] for level in levels] for levels in output))
    expected = 0.5 * added(first, [level[:1] for level in target], **{term: 1.0}) / 2
    assert found.item() == pytest.approx(expected, rel=1e-4)
