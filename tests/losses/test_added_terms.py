"""A loss with terms: their weights, what they are given, what they cost at weight 0."""

import pytest
import torch
from torch import nn
from torch._dynamo import is_dynamo_supported

from nnunet_ext.losses.added_terms import AddedTerm, LossWithTerms, finest
from nnunet_ext.losses.ramps import ConstantRamp, LinearRamp


class MeanSquare(nn.Module):
    """The mean of the squared logits."""

    def forward(self, logits, target, *, epoch, extras):
        return logits.square().mean()


class Recorder:
    """A term of value 1 that keeps what it is given."""

    def __init__(self):
        self.given = []

    def __call__(self, logits, target, *, epoch, extras):
        self.given.append((logits, target, int(epoch), dict(extras)))
        return logits.sum() * 0 + 1


def base(output, target):
    """The mean absolute value of all levels."""
    levels = output if isinstance(output, list) else [output]
    return sum(level.abs().mean() for level in levels)


class Base(nn.Module):
    def forward(self, output, target):
        return base(output, target)


def with_terms(*terms, epoch=0, total_epochs=10):
    loss = LossWithTerms(Base(), terms)
    loss.set_epoch(epoch, total_epochs)
    return loss


def square(weight, **options):
    return AddedTerm("square", MeanSquare(), ConstantRamp(weight), **options)


TWOS = torch.full((1, 3, 4, 4), 2.0)  # base 2, square 4
TARGET = torch.zeros(1, 1, 4, 4)


def test_terms_are_added_with_their_weights():
    one = AddedTerm("one", Recorder(), ConstantRamp(10.0))
    assert with_terms(square(0.5), one)(TWOS, TARGET).item() == 2 + 0.5 * 4 + 10


def test_a_term_may_take_its_weight_from_the_rest():
    # (1 - 0.25) 2 + 0.25 * 4; a second term is added to that
    assert with_terms(square(0.25, replaces_base=True))(TWOS, TARGET).item() == 2.5
    one = AddedTerm("one", Recorder(), ConstantRamp(10.0))
    assert with_terms(square(0.25, replaces_base=True), one)(TWOS, TARGET).item() == 12.5


@pytest.mark.parametrize("replaces_base", [False, True])
def test_weight_0_gives_exactly_the_base_loss_and_its_gradient(replaces_base):
    """Even of a term that is not finite."""

    def broken(logits, target, *, epoch, extras):
        return logits.sum() * torch.nan

    logits = torch.randn((2, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    mine, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = with_terms(AddedTerm("broken", broken, ConstantRamp(0.0), replaces_base=replaces_base))
    found, expected = loss(mine, TARGET), base(plain, TARGET)
    found.backward()
    expected.backward()
    assert torch.equal(found, expected)
    assert torch.equal(mine.grad, plain.grad)


def test_weights_follow_the_epoch():
    loss = with_terms(AddedTerm("square", MeanSquare(), LinearRamp(0, 1, end=0.5)), total_epochs=4)
    found = []
    for epoch in range(4):
        loss.set_epoch(epoch, 4)
        found.append(loss(TWOS, TARGET).item())
    assert found == [2, 4, 6, 6]  # weights 0, 1/2, 1, 1


def test_only_the_output_at_full_resolution_has_terms():
    levels = [TWOS, torch.full((1, 3, 2, 2), 3.0)]  # base 2 + 3
    recorder = Recorder()
    loss = with_terms(square(0.5), AddedTerm("recorder", recorder, ConstantRamp(1.0)))
    assert loss(levels, [TARGET, TARGET[..., ::2, ::2]]).item() == 5 + 0.5 * 4 + 1
    [(logits, target, _, _)] = recorder.given
    assert logits.shape[2:] == target.shape[2:] == (4, 4)


def test_terms_see_the_epoch_and_what_the_loader_computed():
    recorder = Recorder()
    loss = with_terms(AddedTerm("recorder", recorder, ConstantRamp(1.0)), epoch=7)
    loss.extras = {"distance": TARGET}
    loss(TWOS, TARGET)
    [(_, _, epoch, extras)] = recorder.given
    assert epoch == 7
    assert extras["distance"] is TARGET


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_terms_are_computed_in_single_precision_outside_of_autocast(dtype):
    """A product of matrices is what autocast would compute in half precision."""
    seen = []

    def gram(logits, target, *, epoch, extras):
        product = logits.flatten(1) @ logits.flatten(1).T
        seen.append((logits.dtype, product.dtype))
        return product.sum()

    loss = with_terms(AddedTerm("gram", gram, ConstantRamp(1.0)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (TWOS.flatten(1) @ TWOS.flatten(1).T).dtype == torch.bfloat16
        loss(TWOS.to(dtype), TARGET)
        assert torch.is_autocast_enabled("cpu")
    assert seen == [(torch.float32, torch.float32)]


# --- weights per case ---

TWO_CASES = torch.stack([TWOS[0], 2 * TWOS[0]])  # base 3; squares 4 and 16
TWO_TARGETS = torch.zeros(2, 1, 4, 4)


def test_each_sample_of_a_term_counts_by_the_weight_of_its_case():
    """3 + 0.5 (1 * 4 + 0.25 * 16) / 2; the base loss weights its own samples."""
    loss = with_terms(square(0.5))
    loss.case_weights = (1, 0.25)
    assert loss(TWO_CASES, TWO_TARGETS).item() == 3 + 0.5 * 4
    assert loss.values[0].item() == 4


def test_case_weights_of_1_are_the_plain_loss():
    loss = with_terms(square(0.5))
    plain = loss(TWO_CASES, TWO_TARGETS)
    loss.case_weights = (1, 1)
    assert torch.equal(loss(TWO_CASES, TWO_TARGETS), plain)


def test_case_weights_of_0_leave_no_gradient_of_a_term():
    loss = with_terms(square(1.0, replaces_base=True))
    loss.case_weights = (0, 0)
    logits = TWO_CASES.clone().requires_grad_()
    loss(logits, TWO_TARGETS).backward()
    assert not logits.grad.any()


@pytest.mark.parametrize(("by_case", "samples"), [(True, [[1], [3]]), (False, [[1, 2, 3]])])
def test_a_term_gets_the_samples_that_count_with_what_the_loader_computed(by_case, samples):
    """The second of three cases has the weight 0."""
    recorder = Recorder()
    loss = with_terms(AddedTerm("recorder", recorder, ConstantRamp(1.0), by_case=by_case))
    loss.case_weights = (0.5, 0, 2)
    batch = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1)
    loss.extras = {"distance": 10 * batch}
    loss(batch, 100 * batch)
    for (logits, target, _, extras), found in zip(recorder.given, samples, strict=True):
        assert logits.flatten().tolist() == found
        assert target.flatten().tolist() == [100 * number for number in found]
        assert extras["distance"].flatten().tolist() == [10 * number for number in found]


# --- values and gradients ---


def test_values_are_those_of_the_last_call_without_weights():
    loss = with_terms(square(0.5), AddedTerm("off", Recorder(), ConstantRamp(0.0)))
    loss(TWOS.clone().requires_grad_(), TARGET).backward()
    assert loss.values[0].item() == 4
    assert loss.values[1].isnan()  # not computed
    loss.set_epoch(1, 10)
    assert loss.values.isnan().all()


def test_the_gradient_is_that_of_the_weighted_sum():
    logits = TWOS.clone().requires_grad_()
    with_terms(square(0.5))(logits, TARGET).backward()
    torch.testing.assert_close(logits.grad, torch.full_like(TWOS, (1 + 0.5 * 2 * 2) / TWOS.numel()))


def test_terms_with_parameters_are_part_of_the_loss():
    head = nn.Linear(1, 1)

    class WithHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = head

        def forward(self, logits, target, *, epoch, extras):
            return self.head(logits.mean().reshape(1)).sum()

    loss = with_terms(AddedTerm("head", WithHead(), ConstantRamp(1.0)))
    assert any(parameter is head.weight for parameter in loss.parameters())
    assert not loss.state_dict().keys() - {f"modules_of_terms.0.head.{name}" for name in ("weight", "bias")}


def test_two_terms_of_the_same_name_are_refused():
    with pytest.raises(ValueError, match="unique names; found square, square"):
        with_terms(square(0.5), square(0.5))


def test_terms_may_not_replace_more_than_the_loss():
    other = AddedTerm("other", MeanSquare(), ConstantRamp(0.5), replaces_base=True)
    with pytest.raises(ValueError, match=r"sum to at most 1; found 1\.1"):
        with_terms(square(0.6, replaces_base=True), other)


def test_a_ramp_that_gives_no_weight_is_refused():
    with pytest.raises(ValueError, match=r"at least 0; found -1"):
        with_terms(AddedTerm("square", MeanSquare(), lambda *_: -1.0))


def test_terms_share_what_the_loader_computes():
    distance, skeleton = (lambda target: target), (lambda target: target)
    terms = (
        square(1.0, extras={"distance": distance}),
        AddedTerm("other", MeanSquare(), ConstantRamp(1.0), {"skeleton": skeleton, "distance": distance}),
    )
    assert with_terms(*terms).extras_of_target == {"distance": distance, "skeleton": skeleton}
    clash = AddedTerm("clash", MeanSquare(), ConstantRamp(1.0), {"distance": skeleton})
    with pytest.raises(ValueError, match="two functions named 'distance', one of them of clash"):
        _ = with_terms(*terms, clash).extras_of_target


def test_the_finest_level_is_the_first_or_the_only_one():
    assert finest([TWOS, TARGET]) is finest((TWOS, TARGET)) is finest(TWOS) is TWOS


@pytest.mark.skipif(not is_dynamo_supported(), reason="torch.compile does not run on this Python or system")
def test_a_compiled_loss_follows_the_epochs_without_being_compiled_again():
    """Once for the epochs in which the term is off, and once for all others."""
    loss = LossWithTerms(Base(), [AddedTerm("square", MeanSquare(), LinearRamp(0, 1, begin=0.2), replaces_base=True)])
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    try:
        compiled = torch.compile(loss, backend=count, fullgraph=True)
        for epoch in range(10):
            loss.set_epoch(epoch, 10)
            weight = max(0.0, (epoch - 2) / 8)
            assert compiled(TWOS, TARGET).item() == pytest.approx((1 - weight) * 2 + weight * 4)
            assert loss.values[0].item() == 4 or not weight
    finally:
        torch._dynamo.reset()
    assert len(graphs) == 2
