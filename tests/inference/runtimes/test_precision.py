"""The number types of each precision and device, and what is logged about its cost."""

import logging
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_ext.inference import EnsemblePredictor
from nnunet_ext.inference.runtimes import precision
from nnunet_ext.inference.runtimes.batch_size import BatchSize
from nnunet_ext.inference.runtimes.precision import (
    BFLOAT16_WEIGHTS,
    SINGLE,
    Arithmetic,
    arithmetic_for,
    bfloat16_speedup,
    fastest,
    log_cost,
)
from nnunet_ext.inference.runtimes.torch_runtime import run_patches
from nnunet_ext.inference.sliding_window import TiledImage, sliding_window_logits, tile_image
from nnunet_ext.inference.transforms.flip import flips

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


# --- words ---


@pytest.mark.parametrize("word", [None, "fp32"])
def test_a_cpu_computes_in_single_precision_as_stock_does(word):
    assert arithmetic_for(word, CPU) == SINGLE == Arithmetic(weights=torch.float32, autocast=None)


def test_bf16_on_a_cpu_means_weights_and_patches_in_bfloat16():
    assert arithmetic_for("bf16", CPU) == BFLOAT16_WEIGHTS == Arithmetic(weights=torch.bfloat16, autocast=None)


@pytest.mark.parametrize(
    ("word", "autocast"),
    [(None, torch.float16), ("auto", torch.float16), ("bf16", torch.bfloat16), ("fp32", None)],
)
def test_on_cuda_a_word_chooses_the_autocast_and_weights_stay_as_they_are(word, autocast):
    assert arithmetic_for(word, CUDA) == Arithmetic(weights=torch.float32, autocast=autocast)


@pytest.mark.parametrize(
    ("speedup", "expected"), [(0.2, SINGLE), (1.49, SINGLE), (1.5, BFLOAT16_WEIGHTS), (3.0, BFLOAT16_WEIGHTS)]
)
def test_auto_takes_bfloat16_where_a_cpu_is_one_and_a_half_times_as_fast(monkeypatch, speedup, expected):
    monkeypatch.setattr(precision, "bfloat16_speedup", lambda: speedup)
    assert arithmetic_for("auto", CPU) == expected


@pytest.mark.parametrize(("word", "device"), [(None, CPU), ("fp32", CPU), ("bf16", CPU), ("auto", CUDA)])
def test_nothing_is_measured_where_nothing_depends_on_it(monkeypatch, word, device):
    def measure():
        raise AssertionError("this takes time for nothing")

    monkeypatch.setattr(precision, "bfloat16_speedup", measure)
    arithmetic_for(word, device)


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_an_unknown_word_is_refused_with_the_known_ones(device):
    with pytest.raises(ValueError, match=r"must be one of fp32, bf16, auto; found 'fp16'\."):
        arithmetic_for("fp16", device)


def test_autocast_holds_inside_of_the_context_only():
    with SINGLE.context(CPU), BFLOAT16_WEIGHTS.context(CPU):
        assert not torch.is_autocast_enabled("cpu")
    with Arithmetic(autocast=torch.bfloat16).context(CPU):
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")


# --- the measurement ---


def test_the_fastest_call_counts_and_the_first_one_only_warms_up(monkeypatch):
    """A clock that the calls move: the first by 1 s, then 5, 3, 4, 9 and 7."""
    clock = {"seconds": 0.0}
    durations = iter([1.0, 5.0, 3.0, 4.0, 9.0, 7.0])

    def call():
        clock["seconds"] += next(durations)

    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock["seconds"])
    assert fastest(call) == 3.0
    assert next(durations, None) is None


@pytest.fixture
def nothing_measured_yet():
    bfloat16_speedup.cache_clear()
    yield
    bfloat16_speedup.cache_clear()


@pytest.mark.usefixtures("nothing_measured_yet")
def test_the_speedup_is_the_time_of_single_precision_by_that_of_bfloat16(monkeypatch):
    """6 s and 2 s: 3 times as fast. Each convolution is run once, to see that it can be."""
    seconds = iter([6.0, 2.0])
    types = []

    def timed(call):
        types.append(call().dtype)
        return next(seconds)

    monkeypatch.setattr(precision, "fastest", timed)
    assert bfloat16_speedup() == 3.0
    assert types == [torch.float32, torch.bfloat16]
    assert bfloat16_speedup() == 3.0  # and is not measured again: there are no seconds left


# --- a network ---


class Convolution(nn.Module):
    """Notes the type of the patches that it gets."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(1, 3, 3, padding=1)
        self.seen: set[torch.dtype] = set()

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        self.seen.add(patches.dtype)
        return self.layer(patches)


def logits_in(arithmetic: Arithmetic, network: nn.Module, tiled: TiledImage) -> torch.Tensor:
    run = partial(run_patches, network, device=CPU, arithmetic=arithmetic)
    return sliding_window_logits(run, tiled, flips((0,)), batch_size=BatchSize(4))


def test_a_network_in_bfloat16_gives_logits_in_single_precision_that_are_nearly_the_same():
    """bfloat16 has 8 significant bits: each rounding is off by 2^-9 of the value at most, and there are four of them
    (image, weight, product sum, result). The sum of |weight·image| is what the products' errors refer to."""
    image = torch.randn((1, 2, 20, 24), generator=torch.Generator().manual_seed(1))
    tiled = tile_image(image, (16, 16))
    network = Convolution()
    single = logits_in(SINGLE, network, tiled)
    sizes = nn.functional.conv2d(
        image[0][:, None].abs(), network.layer.weight.abs(), network.layer.bias.abs(), padding=1
    )
    reduced = logits_in(BFLOAT16_WEIGHTS, network.bfloat16(), tiled)
    assert network.seen == {torch.float32, torch.bfloat16}
    assert reduced.dtype == torch.float32
    assert reduced.shape == single.shape == (3, 2, 20, 24)
    difference = (reduced - single).abs()
    assert 0 < difference.max() <= 4 * 2**-9 * sizes.max()


# --- what it costs ---


def message_of(caplog, single, reduced, *, regions):
    caplog.clear()
    with caplog.at_level(logging.INFO, logger=precision.__name__):
        log_cost(torch.as_tensor(single), torch.as_tensor(reduced), regions=regions)
    (message,) = caplog.messages
    return message


def test_the_cost_of_classes_by_hand(caplog):
    """Odds of 1:3, 1:1 and 3:1 are 0.25, 0.5 and 0.75 for the second class. Single has 0.25, 0.25, 0.5, 0.5, 0.5,
    and reduced has 0.25, 0.75, 0.5, 0.5, 0.5. One of five voxels differs, by 0.5 in both classes: 0.1 on average, and
    its label is another one: 20 %."""
    odds = math.log(3)
    single = [[[[0.0, 0.0, 0.0, 0.0, 0.0]], [[-odds, -odds, 0.0, 0.0, 0.0]]]]  # (1, 2, 1, 5)
    reduced = [[[[0.0, 0.0, 0.0, 0.0, 0.0]], [[-odds, odds, 0.0, 0.0, 0.0]]]]
    message = message_of(caplog, single, reduced, regions=False)
    assert "1.0e-01 on average and 5.0e-01 at most, labels in 20.000 % of the voxels" in message


def test_the_cost_of_regions_by_hand(caplog):
    """Odds of 3:1 and 1:3 are 0.75 and 0.25. One of ten outputs goes from 0.75 to 0.25: 0.5 at most, 0.05 on average,
    and it alone falls below one half: 10 %. The other region of its voxel stays."""
    odds = math.log(3)
    single = torch.full((1, 2, 5), odds)
    reduced = single.clone()
    reduced[0, 1, 3] = -odds
    message = message_of(caplog, single, reduced, regions=True)
    assert "by 5.0e-02 on average and 5.0e-01 at most, labels in 10.000 %" in message


def test_the_cost_says_for_how_many_patches_it_is(caplog):
    assert "in 3 patches" in message_of(caplog, torch.zeros(3, 2, 4), torch.zeros(3, 2, 4), regions=False)


def test_no_difference_costs_nothing(caplog):
    logits = torch.randn((2, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    message = message_of(caplog, logits, logits.clone(), regions=False)
    assert "0.0e+00 on average and 0.0e+00 at most, labels in 0.000 %" in message


# --- a predictor ---


def test_a_predictor_in_bf16_differs_by_little_and_says_so_once(make_model_folder, make_image, tmp_path, caplog):
    folder = make_model_folder(folds=(0, 1), logit_scale=3, mirror_axes=None)
    images = make_image(make_image(tmp_path / "images", "a"), "b", seed=1)
    probabilities = {}
    for word in ("fp32", "bf16"):
        caplog.clear()
        predictor = EnsemblePredictor.from_model_folders(folder, device="cpu", allow_tqdm=False, precision=word)
        with caplog.at_level(logging.WARNING):
            report = predictor.predict_from_files(images, None, save_probabilities=True)
        assert report.failed == {}
        probabilities[word] = np.stack([case.probabilities for case in report.predictions])
        # two cases with two members each
        assert sum("Reduced precision" in message for message in caplog.messages) == (word == "bf16")
    difference = np.abs(probabilities["bf16"] - probabilities["fp32"])
    assert probabilities["bf16"].dtype == np.float32
    np.testing.assert_allclose(probabilities["bf16"].sum(1), 1, atol=1e-5)  # single precision after the network
    assert 1e-5 < difference.max() < 0.1
    assert difference.mean() < 0.01


def test_an_unknown_precision_is_refused_before_a_model_is_opened(tmp_path):
    with pytest.raises(ValueError, match="found 'double'"):
        EnsemblePredictor.from_model_folders(tmp_path / "none", device="cpu", precision="double")
