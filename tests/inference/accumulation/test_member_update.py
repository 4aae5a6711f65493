"""Members taken into the moments all classes at once: by hand, compiled for all weights and shapes, or refused."""

from __future__ import annotations

import logging
import math
import time
from functools import partial

import pytest
import torch

from nnunet_ext.inference.accumulation import member_update
from nnunet_ext.inference.accumulation.member_update import (
    CompiledUpdate,
    Sums,
    faster_update,
    update_classes,
    update_regions,
    worth_it,
)
from nnunet_ext.inference.accumulation.moments import Moments

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_trial(monkeypatch):
    monkeypatch.setattr(member_update, "TRIAL_SHAPE", (3, 2, 4, 4))


def unchanged(function):
    return function


def members(count, *shape, regions=False):
    generator = torch.Generator().manual_seed(count)
    logits = [torch.randn(shape, generator=generator) for _ in range(count)]
    return [torch.sigmoid(each) if regions else torch.softmax(each, 0) for each in logits]


@pytest.mark.parametrize("update", [update_classes, CompiledUpdate(regions=False, compile_update=unchanged)])
def test_a_second_member_of_weight_3_by_hand(update):
    """Before: (1, 0), weight 1. Then (0, 1), weight 3: mean (1/4, 3/4), squares 1·(3/4)² + 3·(1/4)² = 3/4."""
    mean, entropy, squares = torch.tensor([[1.0], [0.0]]), torch.tensor([0.8]), torch.zeros(2, 1)
    update(Sums(mean, entropy, squares), torch.tensor([[0.0], [1.0]]), 3.0, 0.75)
    assert mean.flatten().tolist() == [0.25, 0.75]
    assert squares.flatten().tolist() == [0.75, 0.75]
    assert entropy.item() == pytest.approx(0.2)  # a quarter of the 0.8 before, and of a certain member nothing


def test_the_entropy_of_regions_is_the_sum_of_the_binary_ones():
    mean, entropy = torch.zeros(2, 1), torch.zeros(1)
    update_regions(Sums(mean, entropy, None), torch.full((2, 1), 0.5), 1.0, 1.0)
    assert entropy.item() == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("with_variance", [False, True])
def test_moments_are_those_of_one_class_after_the_other(regions, with_variance):
    update = CompiledUpdate(regions=regions, compile_update=unchanged)
    found = Moments(regions=regions, with_variance=with_variance, at_once=True, update=update)
    expected = Moments(regions=regions, with_variance=with_variance, at_once=False)
    seen = torch.rand(3, 4, 5).clamp_min(0.1)  # the weights of a member that did not see all of the image
    for values, weight in zip(members(4, 3, 3, 4, 5, regions=regions), (1.0, 2.0, seen, 0.5), strict=True):
        found.add(values, weight)
        expected.add(values, weight)
    torch.testing.assert_close(found.mean(), expected.mean())
    torch.testing.assert_close(found.mutual_information(), expected.mutual_information(), atol=1e-6, rtol=0)
    if with_variance:
        torch.testing.assert_close(found.variance(), expected.variance())


def test_one_compilation_serves_all_weights_and_shapes():
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = partial(torch.compile, fullgraph=True, dynamic=True, backend=counting)
    update = CompiledUpdate(regions=False, compile_update=compiled)
    for shape in ((3, 4, 5, 6), (3, 5, 7, 4), (4, 6, 8, 9)):
        first, *others = members(4, *shape)
        for number, values in enumerate(others, start=2):
            sums = Sums(first, torch.zeros(shape[1:]), torch.zeros(shape))
            update(sums, values, float(number), 1 / number)
    assert len(graphs) == 1


def broken(*given):
    raise RuntimeError("no compiler here\nand more")


def wrong(sums, values, weight, share):
    sums.mean.fill_(math.nan)


def slow(*given):
    time.sleep(0.05)
    update_classes(*given)


@pytest.mark.parametrize(
    ("compiled", "reason"),
    [(broken, r"cannot be compiled (no compiler here)"), (wrong, "compiled sums differ by nan"), (slow, "takes")],
)
def test_an_update_that_fails_differs_or_is_slower_is_not_used(compiled, reason, caplog):
    with caplog.at_level(logging.INFO, "nnunet_ext"):
        assert not worth_it(compiled, update_classes, CPU)
    assert reason in caplog.text


def test_a_faster_one_is_used():
    assert worth_it(update_classes, slow, CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("regions", [False, True])
def test_on_a_gpu_it_compiles_to_the_moments_of_the_cpu(regions):
    device = torch.device("cuda")
    compiled = Moments(regions=regions, update=CompiledUpdate(regions=regions))
    chosen = Moments(regions=regions, update=faster_update(device, regions=regions))
    expected = Moments(regions=regions)
    for values, weight in zip(members(3, 4, 6, 7, 8, regions=regions), (1.0, 2.0, 0.5), strict=True):
        expected.add(values, weight)
        for moments in (compiled, chosen):
            moments.add(values.to(device), weight)
    for moments in (compiled, chosen):
        torch.testing.assert_close(moments.mean().cpu(), expected.mean(), atol=1e-6, rtol=0)
        torch.testing.assert_close(moments.variance().cpu(), expected.variance(), atol=1e-6, rtol=0)
        found = moments.expected_entropy().cpu()
        torch.testing.assert_close(found, expected.expected_entropy(), atol=1e-5, rtol=0)
