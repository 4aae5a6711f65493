"""The OpenVINO runtime predicts as torch does, member by member, and says where it cannot be used."""

from __future__ import annotations

import logging
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from nnunet_ext.inference.engine import EnsembleEngine, open_models
from nnunet_ext.inference.runtimes.choice import CHOICES
from nnunet_ext.inference.runtimes.openvino_graph import (
    CannotRunError,
    graph_key,
    openvino_package,
    weights_of,
)
from nnunet_ext.inference.runtimes.openvino_runtime import OpenVinoRuntime, why_not
from nnunet_ext.inference.runtimes.precision import BFLOAT16_WEIGHTS, SINGLE
from nnunet_ext.inference.runtimes.torch_runtime import TorchRuntime
from nnunet_ext.machine.extras import ExtraMissingError
from nnunet_ext.models.members import MemberRule
from nnunet_ext.models.model import load_model
from nnunet_ext.options import EnsembleOptions

CPU = torch.device("cpu")
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
INSTALLED = find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not INSTALLED, reason="openvino is not installed: pip install openvino")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NNUNET_EXT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


def loaded(folder, arithmetic=SINGLE, rule="final"):
    return load_model(folder, None, MemberRule.parse(rule), device=CPU, weights_dtype=arithmetic.weights)


def noise(patches, *shape):
    return torch.randn(patches, 1, *shape, generator=torch.Generator().manual_seed(3))


# --- the same as torch ---


@needs_openvino
@pytest.mark.parametrize(
    ("description", "shape"),
    [
        ({}, (16, 16)),
        ({"configuration": "3d_fullres", "mirror_axes": (0, 1, 2)}, (8, 16, 16)),
        ({"labels": REGIONS, "regions_class_order": [1, 2]}, (16, 16)),
    ],
    ids=["2d", "3d", "regions"],
)
def test_each_member_gives_the_probabilities_of_torch(make_model_folder, description, shape):
    """Batches of 4, 3 and 1 patches; the first member again at the end, after the others ran."""
    folder = make_model_folder(folds=(0, 1, 2), logit_scale=5.0, **description)
    expected_from, found_from = loaded(folder), loaded(folder)
    torch_runtime, openvino = TorchRuntime(expected_from, CPU, SINGLE), OpenVinoRuntime(found_from, CPU, SINGLE)
    probabilities = torch.sigmoid if "regions_class_order" in description else lambda logits: torch.softmax(logits, 1)
    of_member = []
    for number, patches in ((0, 4), (1, 3), (2, 1), (0, 3)):
        torch_runtime.load(expected_from.members[number])
        openvino.load(found_from.members[number])
        expected, found = (runtime.run(noise(patches, *shape)) for runtime in (torch_runtime, openvino))
        assert found.shape == expected.shape
        assert found.dtype == torch.float32
        assert (probabilities(found) - probabilities(expected)).abs().max() < 1e-4
        of_member.append(found[0])
    assert not torch.equal(of_member[0], of_member[1])
    assert torch.equal(of_member[0], of_member[3])


@needs_openvino
def test_results_of_a_batch_stay_as_they_are_when_the_next_one_runs(make_model_folder):
    model = loaded(make_model_folder())
    runtime = OpenVinoRuntime(model, CPU, SINGLE)
    runtime.load(model.members[0])
    first = runtime.run(noise(2, 16, 16))
    before = first.clone()
    runtime.run(noise(2, 16, 16) + 1)
    assert torch.equal(first, before)


@needs_openvino
def test_bf16_logs_what_it_costs_once(make_model_folder, caplog):
    model = loaded(make_model_folder(logit_scale=5.0), BFLOAT16_WEIGHTS)
    runtime = OpenVinoRuntime(model, CPU, BFLOAT16_WEIGHTS)
    runtime.load(model.members[0])
    with caplog.at_level(logging.WARNING):
        logits = [runtime.run(noise(3, 16, 16)) for _ in range(2)]
    assert torch.equal(*logits)
    assert len([record for record in caplog.records if "Reduced precision" in record.message]) == 1
    single_model = loaded(model.folder)
    single = TorchRuntime(single_model, CPU, SINGLE)
    single.load(single_model.members[0])
    difference = torch.softmax(logits[0], 1) - torch.softmax(single.run(noise(3, 16, 16)), 1)
    assert 0 < difference.abs().mean() < 0.02


@needs_openvino
def test_a_whole_prediction_is_that_of_torch(make_model_folder, make_image, tmp_path):
    """Two folds with flips; the settings, by which a calibration is recognised, are the same."""
    folder, images = make_model_folder(folds=(0, 1)), make_image(tmp_path / "images", shape_zyx=(2, 20, 20))
    predictions, settings = {}, {}
    for runtime in ("torch", "openvino", "auto"):
        options = EnsembleOptions(device="cpu", runtime=runtime, allow_tqdm=False)
        engine = EnsembleEngine(open_models([folder], options), options)
        (predictions[runtime],) = engine.predict_from_files(images, None).predictions
        settings[runtime] = engine.settings
    for runtime in ("openvino", "auto"):
        assert settings[runtime] == settings["torch"]
        same = predictions[runtime].segmentation == predictions["torch"].segmentation
        assert same.mean() > 0.99
        entropies = (predictions[name].maps["entropy"] for name in (runtime, "torch"))
        np.testing.assert_allclose(*entropies, atol=1e-3)


# --- the cache ---


@needs_openvino
def test_the_traced_graph_is_kept_without_weights_and_read_again(make_model_folder, cache):
    """The network has 4 to 8 features, thousands of weights; the constants of the graph are shapes and slopes."""
    folder = make_model_folder(folds=(0, 1))
    model = loaded(folder)
    OpenVinoRuntime(model, CPU, SINGLE)
    (graph,) = cache.glob("*.xml")
    written = graph.stat().st_mtime_ns
    weights = sum(tensor.numel() for tensor in weights_of(model.network).values()) * 4
    assert graph.with_suffix(".bin").stat().st_size < weights / 2
    again = loaded(folder)
    runtime = OpenVinoRuntime(again, CPU, SINGLE)
    assert [file.stat().st_mtime_ns for file in cache.glob("*.xml")] == [written]
    runtime.load(again.members[1])
    plain = TorchRuntime(model, CPU, SINGLE)
    plain.load(model.members[1])
    torch.testing.assert_close(runtime.run(noise(2, 16, 16)), plain.run(noise(2, 16, 16)), rtol=1e-4, atol=1e-3)


@needs_openvino
def test_a_damaged_cache_is_traced_again(make_model_folder, cache):
    model = loaded(make_model_folder())
    OpenVinoRuntime(model, CPU, SINGLE)
    (graph,) = cache.glob("*.xml")
    graph.write_text("no graph")
    OpenVinoRuntime(model, CPU, SINGLE)
    assert graph.read_text() != "no graph"


@needs_openvino
def test_a_graph_belongs_to_one_network_and_one_patch_size(make_model_folder):
    network = loaded(make_model_folder()).network
    other = loaded(make_model_folder("other", channels=2)).network
    keys = [graph_key(network, (1, 16, 16)), graph_key(network, (1, 32, 16)), graph_key(other, (2, 16, 16))]
    assert len(set(keys)) == 3
    assert graph_key(network, torch.Size((1, 16, 16))) == keys[0]


def test_a_tensor_that_two_modules_share_is_an_input_for_each_of_them():
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    assert list(weights_of(torch.nn.Sequential(first, second, first))) == ["0.weight", "0.bias", "1.weight"]


# --- where it is not used ---


def test_it_is_used_on_cpus_only(make_model_folder):
    model = loaded(make_model_folder())
    assert "CPUs only" in why_not(model, torch.device("cuda"))
    assert why_not(model, CPU) is None


@pytest.mark.skipif(INSTALLED, reason="openvino is installed")
def test_where_it_is_missing_the_message_names_the_extra_and_auto_takes_torch(make_model_folder):
    model = loaded(make_model_folder())
    with pytest.raises(ExtraMissingError, match=r"nnunet-ext\[openvino\]"):
        CHOICES["openvino"](model, CPU, SINGLE)
    assert type(CHOICES["auto"](model, CPU, SINGLE)) is TorchRuntime


@needs_openvino
def test_auto_takes_one_of_both(make_model_folder):
    assert type(CHOICES["auto"](loaded(make_model_folder()), CPU, SINGLE)) in (TorchRuntime, OpenVinoRuntime)


@needs_openvino
def test_a_network_that_differs_from_its_graph_runs_in_torch(make_model_folder, caplog):
    """A trace fixes what Python computes: this layer adds the number of patches, 1 when it is traced."""

    class AddsBatchSize(torch.nn.Module):
        def forward(self, values):
            return values + len(values) * torch.arange(values.shape[1]).reshape(1, -1, 1, 1)

    model = loaded(make_model_folder())
    model.network.register_forward_hook(lambda network, inputs, logits: AddsBatchSize()(logits))
    with pytest.raises(CannotRunError):
        OpenVinoRuntime(model, CPU, SINGLE)
    with caplog.at_level(logging.WARNING):
        assert type(CHOICES["openvino"](model, CPU, SINGLE)) is TorchRuntime
    assert "instead of OpenVINO" in caplog.text


@needs_openvino
def test_openvino_is_imported_without_its_telemetry():
    import sys

    assert openvino_package().__name__ == "openvino"
    assert sys.modules["openvino_telemetry"] is None
