"""The engine's options that are not nnU-Net's predictor's: batch sizes that it finds and keeps."""

import pytest
import torch

from nnunet_ext.inference import EnsemblePredictor, engine
from nnunet_ext.inference.batch_size import BatchSize
from nnunet_ext.inference.cases import find_cases
from nnunet_ext.inference.engine import EnsembleEngine


@pytest.fixture
def measured(monkeypatch):
    """The patch sizes for which a batch size is looked for; each gets 8, after one patch was run."""
    patch_sizes = []

    def fitting(patch_size, device, run_patch):
        patch_sizes.append(tuple(patch_size))
        assert run_patch().shape == (1, 3, *patch_size)
        return BatchSize(8)

    monkeypatch.setattr(engine, "fitting_batch_size", fitting)
    return patch_sizes


@pytest.fixture
def two_models(make_model_folder):
    return [
        make_model_folder("first", folds=(0, 1)),
        make_model_folder("second", configuration="3d_fullres", mirror_axes=(0, 1, 2)),
    ]


def opened(folders):
    return EnsembleEngine.from_model_folders(folders, device="cpu", allow_tqdm=False)


def test_each_model_has_a_batch_size_that_is_found_with_the_first_case(two_models, make_image, tmp_path, measured):
    """Patches of 16 x 16 and of 8 x 16 x 16, two cases, three members: looked for twice."""
    images = make_image(make_image(tmp_path / "images", "a"), "b", seed=1)
    report = opened(two_models).predict_from_files(images, None)
    assert report.failed == {}
    assert report.predicted == ["a", "b"]
    assert measured == [(16, 16), (8, 16, 16)]


def test_a_batch_size_that_was_halved_stays_so_for_later_members_and_cases(
    two_models, make_image, tmp_path, measured, monkeypatch
):
    """The memory holds 5 patches: a batch of 8 does not fit, and 4 are run from then on, in both cases."""
    batches = []
    predictor = opened(two_models[:1])
    forward = type(predictor.models[0].network).forward

    def limited(self, patches):
        batches.append(len(patches))
        if len(patches) > 5:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, patches)

    monkeypatch.setattr(type(predictor.models[0].network), "forward", limited)
    images = make_image(make_image(tmp_path / "images", "a"), "b", seed=1)
    assert predictor.predict_from_files(images, None).failed == {}
    assert batches[:3] == [1, 8, 4]  # measured, tried, halved
    assert max(batches[2:]) == 4
    assert measured == [(16, 16)]


def test_the_size_of_a_batch_does_not_change_the_result(two_models, make_image, tmp_path, monkeypatch):
    images = make_image(tmp_path / "images")
    case = find_cases(images, ".nii.gz")[0]
    found = []
    for patches in (1, 3, 100):
        monkeypatch.setattr(engine, "fitting_batch_size", lambda *_, patches=patches: BatchSize(patches))
        predictor = opened(two_models)
        found.append(predictor.predict_case("case", predictor.prepare(case), save_probabilities=True).probabilities)
    for other in found[1:]:
        assert abs(other - found[0]).max() < 1e-4


def test_the_engine_and_the_predictor_give_the_same(two_models, make_image, tmp_path):
    images = make_image(tmp_path / "images")
    (first,), (second,) = (
        kind.from_model_folders(two_models, device="cpu", allow_tqdm=False)
        .predict_from_files(images, None, save_probabilities=True)
        .predictions
        for kind in (EnsembleEngine, EnsemblePredictor)
    )
    assert (first.segmentation == second.segmentation).all()
    assert (first.probabilities == second.probabilities).all()
    assert first.row == second.row


def test_networks_are_compiled_where_nnunets_variable_asks_for_it(two_models, make_image, tmp_path, monkeypatch):
    """Once a model, not once a member; the compiled network sees each member's weights."""
    images = make_image(tmp_path / "images", "a")
    plain = opened(two_models).predict_from_files(images, None).predictions[0]
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    monkeypatch.setenv("nnUNet_compile", "T")
    asked = opened(two_models)
    prediction = asked.predict_from_files(images, None).predictions[0]
    assert compiled == [model.network for model in asked.models]
    assert (prediction.segmentation == plain.segmentation).all()
    assert (prediction.maps["entropy"] == plain.maps["entropy"]).all()
