"""The engine's options that are not nnU-Net's predictor's: batch sizes that it finds and keeps."""

import io

import pytest
import torch
from tqdm import tqdm

from nnunet_ext.inference import EnsemblePredictor, engine, member_runner
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.inference.runtimes.batch_size import BatchSize
from nnunet_ext.prediction_folder.cases import find_cases


@pytest.fixture
def measured(monkeypatch):
    """The patch sizes for which a batch size is looked for; each gets 8, after one patch was run."""
    patch_sizes = []

    def fitting(patch_size, device, run_patch):
        patch_sizes.append(tuple(patch_size))
        assert run_patch().shape == (1, 3, *patch_size)
        return BatchSize(8)

    monkeypatch.setattr(member_runner, "fitting_batch_size", fitting)
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
        monkeypatch.setattr(member_runner, "fitting_batch_size", lambda *_, patches=patches: BatchSize(patches))
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


# --- memory of a GPU ---


def out_of_memory_on_a_gpu(self, device, *, progress, **settings):
    """Two members are done when the sums do not fit any more; on the CPU all is well."""
    if device.type == "cuda":
        progress.update(2)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    progress.update(3)
    return f"summed up on the {device}"


def test_sums_that_do_not_fit_into_a_gpu_are_kept_in_main_memory(two_models, monkeypatch, caplog):
    """No GPU is needed: the device is only a name here."""
    asked = opened(two_models)
    asked.device = torch.device("cuda")
    monkeypatch.setattr(EnsembleEngine, "_predict_case_on", out_of_memory_on_a_gpu)
    monkeypatch.setattr(engine, "require_memory_for", lambda *arguments, **settings: None)
    bar = tqdm(total=3, file=io.StringIO())
    assert asked.predict_case("liver", [], progress=bar) == "summed up on the cpu"
    assert bar.n == 3, "members that are run again count once"
    assert "liver does not fit into the memory of the GPU; summing up in main memory." in caplog.text


def test_other_errors_on_a_gpu_are_not_taken_for_memory_that_runs_out(two_models, monkeypatch):
    def broken(self, device, **settings):
        raise RuntimeError(f"a bug on {device}")

    asked = opened(two_models)
    asked.device = torch.device("cuda")
    monkeypatch.setattr(EnsembleEngine, "_predict_case_on", broken)
    monkeypatch.setattr(engine, "require_memory_for", lambda *arguments, **settings: None)
    with pytest.raises(RuntimeError, match="a bug on cuda"):
        asked.predict_case("liver", [])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), (None, 0.05), ("bf16", 0.2)])
def test_cpu_and_gpu_agree(two_models, make_image, tmp_path, precision, tolerance):
    """TF32 convolutions, which torch allows by default, are the reason for the tolerance in single precision."""
    images = make_image(tmp_path / "images", "a")
    on_cpu = opened(two_models).predict_from_files(images, None).predictions[0]
    on_gpu = EnsembleEngine.from_model_folders(two_models, device="cuda", allow_tqdm=False, precision=precision)
    prediction = on_gpu.predict_from_files(images, None).predictions[0]
    difference = abs(prediction.maps["entropy"] - on_cpu.maps["entropy"])
    assert difference.mean() < tolerance
    assert (prediction.segmentation == on_cpu.segmentation).mean() > 1 - tolerance
