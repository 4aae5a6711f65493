"""Checkpoints are read without running code, written whole, and keep shared weights shared."""

import hashlib
import io
import pickle
import shutil
import zipfile
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_ext.files.checkpoints import (
    CheckpointError,
    cast_weights,
    file_sha256,
    load_checkpoint,
    plain_network,
    save_checkpoint,
)


def tiny_unet():
    return PlainConvUNet(
        input_channels=1,
        n_stages=2,
        features_per_stage=(4, 8),
        conv_op=nn.Conv2d,
        kernel_sizes=3,
        strides=(1, 2),
        n_conv_per_stage=1,
        num_classes=2,
        n_conv_per_stage_decoder=1,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU,
    )


def storages(weights):
    return {tensor.untyped_storage().data_ptr() for tensor in weights.values()}


class RunsCode:
    """Pickles to a call that creates the file `path`, as a malicious checkpoint would."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return shutil.copyfile, (__file__, str(self.path))


def rewritten(path, edit):
    """Writes the zip file at `path` again with the pickled part changed by `edit`, checksums included."""
    with zipfile.ZipFile(path) as archive:
        parts = [(part, archive.read(part)) for part in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts:
            archive.writestr(part, edit(content) if part.endswith("data.pkl") else content)


# --- round trips ---


@pytest.mark.parametrize("mmap", [False, True])
def test_tensors_and_plain_data_survive_a_round_trip(tmp_path, mmap):
    weights = OrderedDict(weight=torch.arange(6.0).reshape(2, 3), steps=torch.tensor(7))
    save_checkpoint({"network_weights": weights, "fold": "all", "axes": (0, 1)}, tmp_path / "c.pth")
    loaded = load_checkpoint(tmp_path / "c.pth", mmap=mmap)
    assert list(loaded["network_weights"]) == ["weight", "steps"]
    assert torch.equal(loaded["network_weights"]["weight"], torch.tensor([[0.0, 1, 2], [3, 4, 5]]))
    assert loaded["network_weights"]["steps"].item() == 7
    assert (loaded["fold"], loaded["axes"]) == ("all", (0, 1))


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("zip_format", [True, False])
def test_both_formats_of_torch_save_are_read(tmp_path, zip_format, mmap):
    torch.save({"w": torch.ones(3)}, tmp_path / "c.pth", _use_new_zipfile_serialization=zip_format)
    assert load_checkpoint(tmp_path / "c.pth", mmap=mmap)["w"].tolist() == [1, 1, 1]


def test_a_checkpoint_that_nnunet_wrote_is_read_without_trust(tmp_path):
    trainer = object.__new__(nnUNetTrainer)  # its constructor needs a preprocessed dataset
    trainer.local_rank, trainer.is_ddp, trainer.disable_checkpointing = 0, False, False
    trainer.network = tiny_unet()
    trainer.optimizer = torch.optim.SGD(trainer.network.parameters(), 0.01, momentum=0.99, nesterov=True)
    trainer.network(torch.ones(1, 1, 8, 8)).sum().backward()
    trainer.optimizer.step()  # fills the momentum buffers
    trainer.grad_scaler = torch.amp.GradScaler("cpu")
    trainer.logger = LocalLogger()
    trainer.logger.log("mean_fg_dice", np.float64(0.75), 0)
    trainer.logger.log("dice_per_class_or_region", [np.float32(0.5), np.float64(np.nan)], 0)
    trainer.logger.log("epoch_start_timestamps", 1700000000.5, 0)
    trainer._best_ema = np.float64(0.75)
    trainer.current_epoch = 0
    trainer.my_init_kwargs = {
        "plans": {"dataset_name": "Dataset001_Tiny", "configurations": {"2d": {"patch_size": [8, 8]}}},
        "configuration": "2d",
        "fold": 0,
        "dataset_json": {"labels": {"background": 0, "organ": 1}, "numTraining": 2},
        "device": torch.device("cuda", 0),
    }
    trainer.inference_allowed_mirroring_axes = (0, 1)
    trainer.save_checkpoint(str(tmp_path / "checkpoint_final.pth"))

    loaded = load_checkpoint(tmp_path / "checkpoint_final.pth")

    tiny_unet().load_state_dict(loaded["network_weights"])  # strict: raises on any missing or extra key
    assert loaded["trainer_name"] == "nnUNetTrainer"
    assert loaded["_best_ema"] == 0.75
    assert loaded["logging"]["mean_fg_dice"] == [0.75]
    assert loaded["logging"]["dice_per_class_or_region"][0][0] == 0.5
    assert loaded["init_args"]["device"] == torch.device("cuda", 0)
    assert loaded["init_args"]["plans"]["configurations"]["2d"]["patch_size"] == [8, 8]
    assert loaded["inference_allowed_mirroring_axes"] == (0, 1)
    assert loaded["current_epoch"] == 1


SCALARS = [
    *(np.float16(0.5), np.float32(0.5), np.float64(0.5), np.int8(-3), np.int16(-3), np.int32(-3)),
    *(np.int64(-3), np.uint8(3), np.uint16(3), np.uint32(3), np.uint64(3), np.bool_(True)),
]


@pytest.mark.parametrize("pickled_by", ["numpy._core.multiarray", "numpy.core.multiarray"])
def test_numpy_scalars_of_numpy_1_and_2_are_read(tmp_path, pickled_by):
    torch.save({"values": SCALARS}, tmp_path / "c.pth")
    module_here = SCALARS[0].__reduce__()[0].__module__
    rewritten(tmp_path / "c.pth", lambda content: content.replace(module_here.encode(), pickled_by.encode()))
    with zipfile.ZipFile(tmp_path / "c.pth") as archive:
        pickled = next(archive.read(part) for part in archive.namelist() if part.endswith("data.pkl"))
    assert f"c{pickled_by}\nscalar\n".encode() in pickled

    loaded = load_checkpoint(tmp_path / "c.pth")["values"]

    assert loaded == SCALARS
    assert [type(value) for value in loaded] == [type(value) for value in SCALARS]


def test_torchs_own_allow_list_is_as_before(tmp_path):
    before = torch.serialization.get_safe_globals()
    save_checkpoint({"value": np.float64(1)}, tmp_path / "c.pth")
    load_checkpoint(tmp_path / "c.pth")
    after = torch.serialization.get_safe_globals()
    assert len(after) == len(before)
    assert all(allowed in before for allowed in after)  # torch keeps a set: their order is by chance


def test_checkpoints_are_read_from_several_threads_at_once(tmp_path):
    # torch keeps one allow-list for all threads, and a load that ends must not take it from another.
    save_checkpoint({"values": SCALARS * 100}, tmp_path / "c.pth")
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(load_checkpoint, [tmp_path / "c.pth"] * 16))
    assert all(checkpoint["values"] == SCALARS * 100 for checkpoint in loaded)


# --- what is refused ---


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("zip_format", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path, zip_format, mmap):
    created = tmp_path / "created"
    checkpoint = {"network_weights": {"w": torch.ones(2)}, "logging": RunsCode(created)}
    torch.save(checkpoint, tmp_path / "bad.pth", _use_new_zipfile_serialization=zip_format)

    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tmp_path / "bad.pth", mmap=mmap)

    assert not created.exists()
    for part in (str(tmp_path / "bad.pth"), "shutil.copyfile", "--trust-checkpoints", "trust=True"):
        assert part in str(error.value)


def test_the_same_code_runs_in_a_trusted_checkpoint(tmp_path):
    # Shows that the file of the test above is live.
    torch.save({"logging": RunsCode(tmp_path / "created")}, tmp_path / "bad.pth")
    load_checkpoint(tmp_path / "bad.pth", trust=True)
    assert (tmp_path / "created").exists()


def test_blocked_system_modules_are_named_too(tmp_path):
    # "cos\nsystem\n" is the pickle instruction for os.system, on every platform
    torch.save({"logging": RunsCode(tmp_path / "created")}, tmp_path / "bad.pth")
    rewritten(tmp_path / "bad.pth", lambda content: content.replace(b"cshutil\ncopyfile\n", b"cos\nsystem\n"))
    with pytest.raises(CheckpointError, match=r"found os\.system"):
        load_checkpoint(tmp_path / "bad.pth")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.zeros(2), "_reconstruct"),  # arrays are not on the list
        (np.str_("fold_0"), "class 'numpy"),  # nor are NumPy's strings
    ],
)
def test_numpy_objects_beyond_numbers_need_trust(tmp_path, value, named):
    save_checkpoint({"value": value}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=f"{named}.*--trust-checkpoints"):
        load_checkpoint(tmp_path / "c.pth")
    assert np.array_equal(load_checkpoint(tmp_path / "c.pth", trust=True)["value"], value)


def test_missing_file_names_the_checkpoints_that_are_there(tmp_path):
    for name in ("checkpoint_final.pth", "checkpoint_best.pth"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(FileNotFoundError) as error:
        load_checkpoint(tmp_path / "checkpoint_swa.pth")
    assert str(tmp_path / "checkpoint_swa.pth") in str(error.value)
    assert "checkpoint_best.pth, checkpoint_final.pth" in str(error.value)


def test_missing_folder_and_folder_in_place_of_a_file_are_missing_files(tmp_path):
    for path in (tmp_path / "fold_0" / "checkpoint_final.pth", tmp_path):
        with pytest.raises(FileNotFoundError, match="none"):
            load_checkpoint(path)


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("share_kept", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("zip_format", [True, False])
def test_truncated_file_is_named(tmp_path, zip_format, share_kept, trust):
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(1000)}, buffer, _use_new_zipfile_serialization=zip_format)
    whole = buffer.getvalue()
    path = tmp_path / "cut.pth"
    path.write_bytes(whole[: int(share_kept * len(whole))])
    for mmap in (False, True):
        with pytest.raises(CheckpointError, match=r"cut\.pth is not a readable checkpoint"):
            load_checkpoint(path, trust=trust, mmap=mmap)


def test_changed_weights_are_noticed(tmp_path):
    # torch.load itself does not compare checksums and would return the changed weights.
    save_checkpoint({"w": torch.full((1000,), 3.0)}, tmp_path / "c.pth")
    content = bytearray((tmp_path / "c.pth").read_bytes())
    three = np.float32(3).tobytes()
    position = content.index(three * 500)
    content[position : position + 4] = np.float32(-3).tobytes()
    (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        load_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize("content", [b"hello", b"\x89PNG\r\n\x1a\n", bytes(1000), b"PK\x03\x04 not a zip"])
def test_file_of_another_kind_is_named(tmp_path, content):
    (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"c\.pth is not a readable checkpoint"):
        load_checkpoint(tmp_path / "c.pth")


def test_checkpoint_must_be_a_dictionary(tmp_path):
    torch.save([torch.ones(2)], tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=r"c\.pth is not a checkpoint.*found list"):
        load_checkpoint(tmp_path / "c.pth")


# --- writing ---


def test_failed_save_leaves_nothing_under_the_name(tmp_path):
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save_checkpoint({"w": torch.ones(2), "loss": lambda: 0}, tmp_path / "c.pth")  # lambdas do not pickle
    assert list(tmp_path.iterdir()) == []


def test_disk_that_is_full_half_way_leaves_the_old_file(tmp_path, monkeypatch):
    save_checkpoint({"epoch": 1}, tmp_path / "c.pth")

    def half_written(checkpoint, file):
        file.write(b"PK\x03\x04 half a checkpoint")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint({"epoch": 2}, tmp_path / "c.pth")
    assert load_checkpoint(tmp_path / "c.pth") == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["c.pth"]


def test_sha256_is_that_of_the_bytes(tmp_path):
    # The published test vector of SHA-256 for "abc"
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_sha256_of_a_file_longer_than_one_chunk(tmp_path):
    content = bytes(range(256)) * 10_000  # 2.56 MB
    (tmp_path / "long").write_bytes(content)
    assert file_sha256(tmp_path / "long") == hashlib.sha256(content).hexdigest()


# --- weights ---


def test_cast_keeps_nnunets_doubly_listed_weights_shared(tmp_path):
    weights = tiny_unet().state_dict()
    assert len(storages(weights)) < len(weights)  # the reason for this function
    cast = cast_weights(weights, torch.float16)
    assert list(cast) == list(weights)
    assert len(storages(cast)) == len(storages(weights))
    for name, tensor in weights.items():
        assert torch.equal(cast[name], tensor.half())


def test_cast_halves_the_file(tmp_path):
    weight = torch.arange(2.0**18)  # 2^18 values of 4 bytes are 1 MiB, once for both keys
    weights = {"conv.weight": weight, "all_modules.0.weight": weight.view(512, 512)}
    save_checkpoint({"network_weights": weights}, tmp_path / "single.pth")
    save_checkpoint({"network_weights": cast_weights(weights, torch.bfloat16)}, tmp_path / "half.pth")
    overhead = 8 * 1024
    assert 2**20 <= (tmp_path / "single.pth").stat().st_size < 2**20 + overhead
    assert 2**19 <= (tmp_path / "half.pth").stat().st_size < 2**19 + overhead


def test_cast_keeps_views_of_one_memory_shared_and_in_place():
    memory = torch.arange(6.0)
    cast = cast_weights({"tail": memory[4:], "columns": memory.view(2, 3).T}, torch.float64)
    assert cast["tail"].tolist() == [4, 5]
    assert cast["columns"].tolist() == [[0, 3], [1, 4], [2, 5]]
    cast["tail"][1] = -1  # the last element of both
    assert cast["columns"][2, 1] == -1


def test_cast_does_not_join_equal_tensors_that_are_separate():
    cast = cast_weights({"a": torch.ones(2), "b": torch.ones(2)}, torch.float16)
    assert len(storages(cast)) == 2


def test_cast_leaves_what_is_not_floating_point_and_the_given_weights_alone():
    weights = {
        "steps": torch.tensor(2**40),
        "mask": torch.tensor([True]),
        "scale": nn.Parameter(torch.tensor([0.1])),
        "empty": torch.zeros(0, 3),
    }
    cast = cast_weights(weights, torch.float16)
    assert cast["steps"] is weights["steps"]
    assert cast["mask"] is weights["mask"]
    assert cast["scale"].dtype == torch.float16
    assert not cast["scale"].requires_grad
    assert cast["empty"].shape == (0, 3)
    assert weights["scale"].dtype == torch.float32


def test_cast_to_the_same_type_copies_nothing():
    weights = {"w": torch.ones(2)}
    assert cast_weights(weights, torch.float32)["w"] is weights["w"]


def test_cast_of_nothing_is_nothing():
    assert cast_weights({}, torch.float16) == {}


def test_weight_too_large_for_the_type_is_refused_by_name():
    # The largest float16 is 65504.
    with pytest.raises(ValueError, match=r"65504; found 70000 in stem\.weight"):
        cast_weights({"stem.weight": torch.tensor([1.0, -70000.0])}, torch.float16)


def test_weights_that_are_already_infinite_or_nan_stay_so():
    cast = cast_weights({"w": torch.tensor([float("nan"), float("inf"), 1.0])}, torch.float16)["w"]
    assert cast.isnan().tolist() == [True, False, False]
    assert cast.isinf().tolist() == [False, True, False]


# --- wrappers ---


def test_plain_network_is_itself():
    network = nn.Linear(1, 1)
    assert plain_network(network) is network


def test_plain_network_of_a_compiled_network():
    network = nn.Linear(1, 1)
    assert plain_network(torch.compile(network)) is network


def test_plain_network_of_a_compiled_distributed_network(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        network = nn.Linear(1, 1)
        assert plain_network(nn.parallel.DistributedDataParallel(network)) is network
        assert plain_network(nn.parallel.DistributedDataParallel(torch.compile(network))) is network
        assert plain_network(torch.compile(nn.parallel.DistributedDataParallel(network))) is network
    finally:
        torch.distributed.destroy_process_group()
