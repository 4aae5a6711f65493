"""Prediction with `--adapt`: what changes, what must not, what is recorded, and what it is refused with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_ext.architectures.streaming import FixedWeights, StreamingNetwork
from nnunet_ext.inference import EnsemblePredictor
from nnunet_ext.inference.adaptation.adapting_runner import adaptable_runtime
from nnunet_ext.inference.engine import EnsembleEngine, open_models
from nnunet_ext.inference.runtimes.choice import RUNTIMES
from nnunet_ext.inference.runtimes.precision import SINGLE
from nnunet_ext.inference.runtimes.torch_runtime import CompiledTorchRuntime
from nnunet_ext.models.members import MemberError
from nnunet_ext.options import AdaptOptions, EnsembleOptions
from nnunet_ext.prediction_folder.case_files import CasePrediction
from nnunet_ext.prediction_folder.provenance import OtherEnsembleError

STRONG = AdaptOptions(steps=3, learning_rate=1e-2, tiles=3, largest_volume_change=10, largest_confidence_change=1)
NEVER = replace(STRONG, largest_confidence_change=1e-9)


@pytest.fixture
def folder(make_model_folder: Callable[..., Path]) -> Path:
    """Two folds that are uncertain enough for an adaptation to change something."""
    return make_model_folder(folds=(0, 1), logit_scale=2.0)


@pytest.fixture
def images(make_image: Callable[..., Path], tmp_path: Path) -> Path:
    return make_image(make_image(tmp_path / "images", "a"), "b", seed=1)


def opened(folder: Path, adapt: AdaptOptions | None = STRONG, **options: Any) -> EnsembleEngine:
    return EnsembleEngine.from_model_folders(folder, device="cpu", allow_tqdm=False, adapt=adapt, **options)


def predicted(folder: Path, images: Any, adapt: AdaptOptions | None = STRONG, **options: Any) -> list[CasePrediction]:
    outcome = opened(folder, adapt, **options).predict_from_files(images, None, save_probabilities=True)
    assert outcome.failed == {}
    return outcome.predictions


def same(first: CasePrediction, second: CasePrediction) -> bool:
    return np.array_equal(first.probabilities, second.probabilities) and np.array_equal(
        first.segmentation, second.segmentation
    )


# --- what changes, and what must not ---


def test_adaptation_changes_the_probabilities_and_lowers_their_entropy(folder, images):
    for plain, adapted in zip(predicted(folder, images, None), predicted(folder, images), strict=True):
        assert not same(plain, adapted)
        assert adapted.row["foreground_entropy"] < plain.row["foreground_entropy"]
        assert adapted.row["adapted_members"] == 2
        assert adapted.row["not_adapted"] == ""
        assert "adapted_members" not in plain.row


def test_no_steps_are_the_plain_prediction_bit_by_bit(folder, images):
    for plain, adapted in zip(
        predicted(folder, images, None), predicted(folder, images, AdaptOptions(steps=0)), strict=True
    ):
        assert same(plain, adapted)


def test_a_member_that_jumps_keeps_its_plain_prediction_bit_by_bit(folder, images):
    for plain, kept in zip(predicted(folder, images, None), predicted(folder, images, NEVER), strict=True):
        assert same(plain, kept)
        assert kept.row["adapted_members"] == 0
        reasons = str(kept.row["not_adapted"]).split("; ")
        assert [reason.split(": ")[0] for reason in reasons] == [
            "fold_0/checkpoint_final", "fold_1/checkpoint_final",
        ]  # fmt: skip


def test_the_whole_prediction_is_guarded_after_the_last_step(folder, images):
    """A single step is taken before any tile is seen again: only the look at the whole prediction can catch it."""
    (plain, *_), (kept, *_) = (predicted(folder, images, adapt) for adapt in (None, replace(NEVER, steps=1)))
    assert same(plain, kept)
    assert kept.row["adapted_members"] == 0


def test_a_case_without_foreground_is_not_adapted(make_model_folder, write_checkpoint, images):
    """Background has a bias that wins everywhere."""

    def always_background(checkpoint: dict[str, Any]) -> None:
        for name, tensor in checkpoint["network_weights"].items():
            if "seg_layers" in name and name.endswith("bias"):
                tensor[0] = 1e4

    folder = make_model_folder()
    write_checkpoint(folder, 0, edit=always_background)
    (prediction, *_) = predicted(folder, images)
    assert prediction.row["not_adapted"] == "fold_0/checkpoint_final: there is no foreground"
    assert prediction.row["adapted_members"] == 0


def test_neither_the_order_of_the_cases_nor_a_second_run_changes_a_bit(folder, images):
    files = [[str(path)] for path in sorted(images.iterdir())]
    engine = opened(folder)
    first, second = (
        {one.case: one for one in engine.predict_from_files(order, None, save_probabilities=True).predictions}
        for order in (files, files[::-1])
    )
    again = {one.case: one for one in predicted(folder, files)}
    for case, prediction in first.items():
        assert same(prediction, second[case])
        assert same(prediction, again[case])


def test_a_member_is_adapted_alone(folder, images):
    """Fold 1 after fold 0 is the same as fold 1 alone: the mean of two is the mean of each one's own prediction."""
    both = predicted(folder, images)
    each = [predicted(folder, images, folds=[fold]) for fold in (0, 1)]
    for together, first, second in zip(both, *each, strict=True):
        np.testing.assert_allclose(
            together.probabilities, (first.probabilities + second.probabilities) / 2, atol=1e-6
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", None])
def test_a_gpu_adapts_too_and_gives_the_same_bits_twice(folder, images, precision):
    first, second = (
        EnsembleEngine.from_model_folders(
            folder, device="cuda", allow_tqdm=False, adapt=STRONG, precision=precision
        ).predict_from_files(images, None, save_probabilities=True).predictions
        for _ in range(2)
    )  # fmt: skip
    for one, other in zip(first, second, strict=True):
        assert one.row["adapted_members"] == 2
        assert same(one, other)


def test_the_models_weights_are_the_same_afterwards(folder, images):
    engine = opened(folder)
    (model,) = engine.models
    before = [{name: tensor.clone() for name, tensor in model.weights.of(m).items()} for m in model.members]
    engine.predict_from_files(images, None)
    for member, weights in zip(model.members, before, strict=True):
        assert all(torch.equal(tensor, weights[name]) for name, tensor in model.weights.of(member).items())


@pytest.mark.parametrize(
    "kind",
    [
        {"configuration": "3d_fullres", "mirror_axes": (0, 1, 2)},
        {"labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": [1, 2], "seeds": (22,)},
    ],
    ids=["3D", "regions"],
)
def test_volumes_and_regions_are_adapted_too(make_model_folder, images, kind):
    folder = make_model_folder(logit_scale=2.0, **kind)
    for plain, adapted in zip(predicted(folder, images, None), predicted(folder, images), strict=True):
        assert adapted.row["not_adapted"] == ""
        assert not same(plain, adapted)


def test_transforms_as_members_are_adapted_each(folder, images):
    """Two folds, four flips."""
    (prediction, *_) = predicted(folder, images, tta_members=True)
    assert prediction.row["adapted_members"] == 8


@pytest.mark.parametrize(("adapt", "changes"), [(STRONG, True), (NEVER, False)], ids=["adapted", "kept"])
@pytest.mark.parametrize("tta", ["flips", "full"])
def test_the_variance_between_transforms_is_that_of_the_prediction_that_counts(folder, images, tta, adapt, changes):
    """Also with transforms that interpolate, which see a part of the image only."""
    options = {"tta": tta, "folds": [0]}
    (plain, *_), (other, *_) = (
        opened(folder, each, **options).predict_from_files(images, None, maps=["tta_variance"]).predictions
        for each in (None, adapt)
    )
    assert other.row["adapted_members"] == int(changes)
    assert np.array_equal(plain.maps["tta_variance"], other.maps["tta_variance"]) != changes


def test_arrays_are_adapted_by_the_predictor(folder):
    """nnU-Net's entry for arrays runs in inference mode, in which autograd would not work."""
    image = torch.randn(1, 2, 20, 20, generator=torch.Generator().manual_seed(0))
    plain, adapted = (
        EnsemblePredictor.from_model_folders(
            folder, device="cpu", allow_tqdm=False, adapt=adapt
        ).predict_logits_from_preprocessed_data(image)
        for adapt in (None, STRONG)
    )
    assert adapted.shape == plain.shape
    assert not torch.equal(plain, adapted)


# --- what is recorded ---


def test_the_case_is_logged_once(folder, images, caplog):
    caplog.set_level("INFO", "nnunet_ext.inference.adaptation")
    predicted(folder, images, NEVER)
    records = [record for record in caplog.records if record.name.startswith("nnunet_ext.inference.adaptation")]
    said = [record.getMessage().split(" adapted")[0] for record in records]
    assert said == ["a: 0 of 2 members", "b: 0 of 2 members"]


def test_a_folder_records_adaptation_and_is_not_continued_without_it(folder, images, tmp_path):
    opened(folder, AdaptOptions(steps=1)).predict_from_files(images, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "predict_args.json").read_text())
    assert record["ensemble"]["adapt"] == asdict(AdaptOptions(steps=1))
    assert "adapted_members,not_adapted" in (tmp_path / "out" / "cases.csv").read_text().splitlines()[0]
    with pytest.raises(OtherEnsembleError, match=r"adapt: found steps 1, .*, asked for none"):
        opened(folder, None).predict_from_files(images, tmp_path / "out", continue_prediction=True)


def test_adaptation_is_one_of_the_settings_that_a_calibration_belongs_to(folder):
    plain, adapted = (opened(folder, adapt).settings for adapt in (None, STRONG))
    assert adapted == plain | {"adapt": asdict(STRONG)}


# --- what it is refused with ---


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"early_exit": "label"}, "whole prediction, which early exit avoids"),
        ({"precision": "bf16"}, "single precision; found precision 'bf16'"),
        ({"precision": "auto"}, "single precision; found precision 'auto'"),
    ],
)
def test_options_that_contradict_it_are_refused(other, why):
    with pytest.raises(ValueError, match=why):
        EnsembleOptions(adapt=AdaptOptions(), **other)


def test_a_network_whose_norms_have_no_scale_is_refused(make_model_folder, write_checkpoint):
    folder = make_model_folder()
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["norm_op_kwargs"]["affine"] = False
    (folder / "plans.json").write_text(json.dumps(plans))
    write_checkpoint(folder, 0)
    with pytest.raises(MemberError, match=r"no norm layers with scale and shift\. Leave out --adapt"):
        opened(folder)


def test_a_mixture_is_refused(make_model_folder):
    (model,) = open_models([make_model_folder()], EnsembleOptions(device="cpu"))
    mixture = StreamingNetwork([model.network, nn.Conv2d(1, 3, 1)], FixedWeights([0.5, 0.5]), "log")
    with pytest.raises(MemberError, match="mixes 2"):
        adaptable_runtime(replace(model, network=mixture), torch.device("cpu"), SINGLE)


def test_networks_are_not_compiled(folder):
    options = EnsembleOptions(device="cpu", adapt=STRONG, allow_tqdm=False)
    engine = EnsembleEngine(open_models([folder], options), options, choose_runtime=RUNTIMES["torch-compiled"])
    assert not isinstance(engine.runners[0].runtime, CompiledTorchRuntime)
