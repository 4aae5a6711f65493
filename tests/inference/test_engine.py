"""The engine's options that are not nnU-Net's predictor's: batch sizes that it finds and keeps."""

import io

import pytest
import torch
from tqdm import tqdm

from nnunet_ext.inference import EnsemblePredictor
from nnunet_ext.inference.engine import EnsembleEngine, open_models
from nnunet_ext.inference.memory_fallback import where_it_fits
from nnunet_ext.inference.runtimes.batch_size import BatchSize
from nnunet_ext.inference.runtimes.choice import runtime_for
from nnunet_ext.inference.runtimes.precision import SINGLE
from nnunet_ext.inference.runtimes.torch_runtime import CompiledTorchRuntime, TorchRuntime
from nnunet_ext.models.members import MemberError
from nnunet_ext.options import EnsembleOptions


@pytest.fixture
def two_models(make_model_folder):
    return [
        make_model_folder("first", folds=(0, 1)),
        make_model_folder("second", configuration="3d_fullres", mirror_axes=(0, 1, 2)),
    ]


def opened(folders, choose_runtime=runtime_for):
    options = EnsembleOptions(device="cpu", allow_tqdm=False)
    return EnsembleEngine(open_models(folders, options), options, choose_runtime=choose_runtime)


def with_batches_of(patches, measured=None):
    """Runtimes that take this many patches at a time, whatever the patch; each time one asks is noted."""

    def find(patch_size, device, run_patch):
        if measured is not None:
            measured.append(tuple(patch_size))
        assert run_patch().shape == (1, 3, *patch_size)
        return BatchSize(patches)

    return lambda model, device, arithmetic: TorchRuntime(model, device, arithmetic, find)


def test_each_model_has_a_batch_size_that_is_found_with_the_first_case(two_models, make_image, tmp_path):
    """Patches of 16 x 16 and of 8 x 16 x 16, two cases, three members: looked for twice."""
    measured = []
    images = make_image(make_image(tmp_path / "images", "a"), "b", seed=1)
    outcome = opened(two_models, with_batches_of(8, measured)).predict_from_files(images, None)
    assert outcome.failed == {}
    assert outcome.predicted == ["a", "b"]
    assert measured == [(16, 16), (8, 16, 16)]


def test_a_batch_size_that_was_halved_stays_so_for_later_members_and_cases(two_models, make_image, tmp_path):
    """The memory holds 5 patches: a batch of 8 does not fit, and 4 are run from then on, in both cases."""
    batches, measured = [], []
    engine = opened(two_models[:1], with_batches_of(8, measured))
    (network,) = engine.runners[0].runtime.networks

    def limited(patches):
        batches.append(len(patches))
        if len(patches) > 5:
            raise torch.OutOfMemoryError("out of memory")
        return network(patches)

    engine.runners[0].runtime.networks = [limited]
    images = make_image(make_image(tmp_path / "images", "a"), "b", seed=1)
    assert engine.predict_from_files(images, None).failed == {}
    assert batches[:2] == [8, 4]  # tried, halved
    assert max(batches[1:]) == 4
    assert measured == [(16, 16)]


def test_the_size_of_a_batch_does_not_change_the_result(two_models, make_image, tmp_path):
    images = make_image(tmp_path / "images")
    found = []
    for patches in (1, 3, 100):
        engine = opened(two_models, with_batches_of(patches))
        found.append(engine.predict_from_files(images, None, save_probabilities=True).predictions[0].probabilities)
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


def test_compiled_networks_see_the_weights_of_each_member(two_models, make_image, tmp_path):
    """Compiled once per model, not once per member."""
    images = make_image(tmp_path / "images", "a")
    plain = opened(two_models).predict_from_files(images, None).predictions[0]
    compiled = []

    def note(network):
        compiled.append(network)
        return network

    def compiling(model, device, arithmetic):
        return CompiledTorchRuntime(model, device, arithmetic, compile_network=note)

    engine = opened(two_models, compiling)
    prediction = engine.predict_from_files(images, None).predictions[0]
    assert compiled == [model.network for model in engine.models]
    assert (prediction.segmentation == plain.segmentation).all()
    assert (prediction.maps["entropy"] == plain.maps["entropy"]).all()


def test_nnunets_variable_asks_for_compiled_networks(two_models, monkeypatch):
    model = opened(two_models[:1]).models[0]
    assert type(runtime_for(model, torch.device("cpu"), SINGLE)) is TorchRuntime
    monkeypatch.setenv("nnUNet_compile", "T")
    assert type(runtime_for(model, torch.device("cpu"), SINGLE)) is CompiledTorchRuntime


def test_the_constructor_refuses_models_and_weights_that_do_not_fit(two_models):
    """They are refused before the first case is predicted."""
    with pytest.raises(MemberError, match="one positive number per model folder"):
        EnsembleEngine.from_model_folders(two_models, device="cpu", model_weights=[1])
    with pytest.raises(MemberError, match="at least one model folder"):
        EnsembleEngine([], EnsembleOptions(device="cpu"))


def test_tta_members_of_a_model_trained_without_mirroring_are_said_to_add_nothing(make_model_folder, caplog):
    folder = make_model_folder("plain", mirror_axes=None)
    EnsembleEngine.from_model_folders(folder, device="cpu", tta_members=True)
    assert "--tta-members adds nothing" in caplog.text
    caplog.clear()
    EnsembleEngine.from_model_folders(make_model_folder("mirroring"), device="cpu", tta_members=True)
    assert "--tta-members" not in caplog.text


def test_a_single_fold_needs_no_list(make_model_folder):
    engine = EnsembleEngine.from_model_folders(make_model_folder(folds=(0, 1)), device="cpu", folds=0)
    assert [member.name for member in engine.models[0].members] == ["fold_0/checkpoint_final"]


def test_cuda_without_a_gpu_is_refused_in_python_as_on_the_command_line(make_model_folder, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=r"torch finds none\. Use -device cpu"):
        EnsembleEngine.from_model_folders(make_model_folder(), device="cuda")


# --- memory of a GPU: no GPU is needed, the device is only a name here ---


def test_sums_that_do_not_fit_into_a_gpu_are_kept_in_main_memory(caplog):
    """Two members are done when the sums do not fit any more; on the CPU all is well."""
    bar = tqdm(total=3, file=io.StringIO())

    def predict_on(device):
        if device.type == "cuda":
            bar.update(2)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        bar.update(3)
        return f"summed up on the {device}"

    assert where_it_fits(predict_on, torch.device("cuda"), "liver", bar) == "summed up on the cpu"
    assert bar.n == 3, "members that are run again count once"
    assert "liver does not fit into GPU memory" in caplog.text


def test_other_errors_on_a_gpu_are_not_taken_for_memory_that_runs_out():
    def broken(device):
        raise RuntimeError(f"a bug on {device}")

    with pytest.raises(RuntimeError, match="a bug on cuda"):
        where_it_fits(broken, torch.device("cuda"), "liver")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("runtime", ["torch", "auto"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), (None, 0.05), ("bf16", 0.2)])
def test_cpu_and_gpu_agree(two_models, make_image, tmp_path, precision, tolerance, runtime):
    """TF32 convolutions, which torch allows by default, are the reason for the tolerance in single precision."""
    images = make_image(tmp_path / "images", "a")
    on_cpu = opened(two_models).predict_from_files(images, None).predictions[0]
    on_gpu = EnsembleEngine.from_model_folders(
        two_models, device="cuda", allow_tqdm=False, precision=precision, runtime=runtime
    )
    prediction = on_gpu.predict_from_files(images, None).predictions[0]
    difference = abs(prediction.maps["entropy"] - on_cpu.maps["entropy"])
    assert difference.mean() < tolerance
    assert (prediction.segmentation == on_cpu.segmentation).mean() > 1 - tolerance
