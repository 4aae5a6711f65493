"""The fused runtime predicts as torch does, is compiled once for all members, and says where it cannot be used."""

from __future__ import annotations

import logging

import pytest
import torch

from nnunet_ext.architectures.over_volumes import SingleNetwork
from nnunet_ext.inference.runtimes.choice import CHOICES, faster_runtime
from nnunet_ext.inference.runtimes.fused_runtime import FusedRuntime
from nnunet_ext.inference.runtimes.precision import SINGLE, Arithmetic
from nnunet_ext.inference.runtimes.runtime import CannotRunError
from nnunet_ext.inference.runtimes.torch_runtime import TorchRuntime
from nnunet_ext.models.members import MemberRule
from nnunet_ext.models.model import load_model

CPU = torch.device("cpu")
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NNUNET_EXT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)


def loaded(folder, device=CPU, rule="final"):
    return load_model(folder, None, MemberRule.parse(rule), device=device)


def noise(patches, *shape):
    return torch.randn(patches, 1, *shape, generator=torch.Generator().manual_seed(3))


def unchanged(network):
    return network


@pytest.mark.parametrize(
    ("description", "shape"),
    [
        ({}, (16, 16)),
        ({"configuration": "3d_fullres", "mirror_axes": (0, 1, 2)}, (8, 16, 16)),
        ({"labels": REGIONS, "regions_class_order": [1, 2]}, (16, 16)),
    ],
    ids=["2d", "3d", "regions"],
)
def test_each_member_gives_the_logits_of_torch(make_model_folder, description, shape):
    """The first member again at the end, after the others ran."""
    folder = make_model_folder(folds=(0, 1, 2), logit_scale=5.0, **description)
    plain, model = loaded(folder), loaded(folder)
    expected_from, found_from = TorchRuntime(plain, CPU, SINGLE), FusedRuntime(model, CPU, SINGLE, unchanged)
    for number, patches in ((0, 4), (1, 3), (2, 1), (0, 3)):
        expected_from.load(plain.members[number])
        found_from.load(model.members[number])
        expected, found = (runtime.run(noise(patches, *shape)) for runtime in (expected_from, found_from))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_one_compilation_serves_all_members_and_numbers_of_patches(make_model_folder):
    """But for a single patch, which torch compiles for itself."""
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph

    model = loaded(make_model_folder(folds=(0, 1)))
    runtime = FusedRuntime(model, CPU, SINGLE, lambda network: torch.compile(network, backend=counting))
    for patches in (4, 3, 7):
        for member in model.members:
            runtime.load(member)
            runtime.run(noise(patches, 16, 16))
    assert len(graphs) == 1
    runtime.run(noise(1, 16, 16))
    assert len(graphs) == 2


def test_convolutions_have_the_type_that_stock_gives_them(make_model_folder):
    """bfloat16 autocast; networks whose own probabilities differ by no more than twice as much are taken."""
    networks = []
    model = loaded(make_model_folder(logit_scale=1.0))
    FusedRuntime(model, CPU, Arithmetic(autocast=torch.bfloat16), lambda one: networks.append(one) or one)
    assert {tensor.dtype for tensor in networks[0].state_dict().values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in model.network.state_dict().values()} == {torch.float32}


def test_other_probabilities_than_torch_are_refused(make_model_folder):
    with pytest.raises(CannotRunError, match="differ from single precision by"):
        FusedRuntime(loaded(make_model_folder()), CPU, SINGLE, lambda network: lambda patches: -network(patches))


def test_a_compiler_that_fails_is_reported_by_its_first_line(make_model_folder):
    def broken(network):
        def run(patches):
            raise RuntimeError("no compiler here\nand more")

        return run

    with pytest.raises(CannotRunError, match=r"cannot be compiled \(no compiler here\)"):
        FusedRuntime(loaded(make_model_folder()), CPU, SINGLE, broken)


def test_a_network_that_may_not_be_compiled_runs_in_torch(make_model_folder, caplog):
    class Interpreted(SingleNetwork):
        may_be_compiled = False

    model = loaded(make_model_folder())
    network = model.network
    network.over_volumes = lambda: Interpreted(network)
    with caplog.at_level(logging.INFO, "nnunet_ext"):
        assert type(faster_runtime(model, CPU, SINGLE, {"cpu": ("fused", "recorded")})) is TorchRuntime
    assert "fused cannot be used, the network is a mixture" in caplog.text
    assert "recorded cannot be used, the network is a mixture" in caplog.text


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize(("autocast", "tolerance"), [(None, 1e-2), (torch.float16, 0.05), (torch.bfloat16, 0.2)])
def test_on_a_gpu_probabilities_are_those_of_torch(make_model_folder, autocast, tolerance):
    gpu, arithmetic = torch.device("cuda"), Arithmetic(autocast=autocast)
    folder = make_model_folder(folds=(0, 1), logit_scale=1.0)
    plain, model = loaded(folder, gpu), loaded(folder, gpu)
    expected_from, found_from = TorchRuntime(plain, gpu, arithmetic), FusedRuntime(model, gpu, arithmetic)
    for number in (0, 1, 0):
        expected_from.load(plain.members[number])
        found_from.load(model.members[number])
        for patches in (8, 5, 1):
            expected, found = (
                torch.softmax(runtime.run(noise(patches, 16, 16)), 1) for runtime in (expected_from, found_from)
            )
            assert (found - expected).abs().max() < tolerance


@pytest.mark.gpu
@needs_cuda
def test_on_a_gpu_the_faster_of_both_is_chosen(make_model_folder):
    chosen = CHOICES["auto"](loaded(make_model_folder(), torch.device("cuda")), torch.device("cuda"), SINGLE)
    assert type(chosen) in (TorchRuntime, FusedRuntime)
