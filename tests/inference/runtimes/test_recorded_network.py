"""A recorded network gives what the network gives, with the weights that it has at that time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_ext.inference.runtimes.choice import compilation, is_usable
from nnunet_ext.inference.runtimes.recorded_network import MOST_SHAPES, RecordedNetwork

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")


def doubling():
    """A network that doubles a patch, until its weight changes."""
    network = nn.Conv2d(1, 1, 1, bias=False).requires_grad_(False)
    network.weight.fill_(2.0)
    return network


def patches(number, device="cpu"):
    return torch.arange(number * 4.0, device=device).reshape(number, 1, 2, 2)


def test_each_shape_is_recorded_once():
    shapes = []

    def record(network, example):
        shapes.append(len(example))
        return network

    recorded = RecordedNetwork(doubling(), record)
    for number in (3, 1, 3, 1):
        torch.testing.assert_close(recorded(patches(number)), 2 * patches(number))
    assert shapes == [3, 1]


def test_shapes_beyond_the_most_run_as_they_are():
    recorded = RecordedNetwork(doubling(), lambda network, example: lambda given: -network(given))
    signs = [torch.sign(recorded(patches(number))).sum().item() for number in range(1, MOST_SHAPES + 2)]
    assert [sign > 0 for sign in signs] == [False] * MOST_SHAPES + [True]


def test_what_cannot_be_recorded_runs_as_it_is():
    def fails(network, example):
        raise RuntimeError("the network waits for the GPU")

    torch.testing.assert_close(RecordedNetwork(doubling(), fails)(patches(2)), 2 * patches(2))


@pytest.mark.parametrize(
    ("said", "meant", "compiles"), [("", "", True), ("T", "wanted", True), ("false", "unwanted", False)]
)
def test_a_gpu_records_instead_of_compiling_where_nnunet_must_not_compile(monkeypatch, said, meant, compiles):
    monkeypatch.setenv("nnUNet_compile", said)
    assert compilation() == meant
    assert is_usable("fused") is compiles
    assert is_usable("recorded")


@pytest.mark.gpu
@needs_cuda
def test_on_a_gpu_a_replay_reads_new_patches_and_new_weights():
    network = doubling().cuda()
    recorded = RecordedNetwork(network)
    first = recorded(patches(3, "cuda"))
    second = recorded(patches(3, "cuda") + 1)
    torch.testing.assert_close(first, 2 * patches(3, "cuda"))  # not overwritten by the second
    torch.testing.assert_close(second, 2 * patches(3, "cuda") + 2)
    network.weight.fill_(3.0)
    torch.testing.assert_close(recorded(patches(3, "cuda")), 3 * patches(3, "cuda"))
