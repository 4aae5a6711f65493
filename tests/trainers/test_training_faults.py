"""Trainings killed or out of disk space while they sample: the last checkpoint is intact, and they continue."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_ext import samples as posterior_samples
from nnunet_ext.files.checkpoints import CheckpointError, file_sha256, load_checkpoint
from nnunet_ext.samples import read_manifest, remove_samples
from nnunet_ext.trainers import base

NAME = "nnUNetTrainerCyclical3_6epochs_member0"  # cycles of two epochs, of which the second is sampled
SAMPLES = ["checkpoint_c0_e0001.pth", "checkpoint_c1_e0003.pth", "checkpoint_c2_e0005.pth"]


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_a_file(_: Any, file: Any) -> None:
    """What torch.save leaves behind on a full disk, given an open file or a name."""
    if hasattr(file, "write"):
        file.write(b"PK\x03\x04 the beginning")
    else:
        Path(file).write_bytes(b"PK\x03\x04 the beginning")
    full_disk()


def full_at_the_sample(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(base, "save_checkpoint", lambda checkpoint, path: full_disk())


def full_within_the_sample(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "save", half_a_file)


def full_at_the_manifest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(posterior_samples, "write_json", full_disk)


def full_at_the_renaming(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "replace", full_disk)


def resumed(make_trainer: Callable[..., Any], folder: Path) -> Any:
    trainer = make_trainer(NAME, initialize=False)
    trainer.load_checkpoint(str(folder / "checkpoint_latest.pth"))
    return trainer


def assert_finishes_like_an_undisturbed_one(make_trainer, run_epochs, folder: Path) -> None:
    """Continues from `checkpoint_latest.pth`; every sample is then whole, recorded, and that of its epoch."""
    trainer = resumed(make_trainer, folder)
    run_epochs(trainer, 6)
    samples = {sample.file: file_sha256(folder / sample.file) for sample in read_manifest(folder)}
    assert list(samples) == SAMPLES
    assert [sample.sha256 for sample in read_manifest(folder)] == list(samples.values())
    found = [load_checkpoint(folder / name)["network_weights"] for name in SAMPLES]
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    undisturbed = make_trainer(NAME)
    run_epochs(undisturbed, 6)
    for name, weights in zip(SAMPLES, found, strict=True):
        for key, tensor in load_checkpoint(folder / name)["network_weights"].items():
            torch.testing.assert_close(weights[key], tensor, rtol=1e-3, atol=1e-4)


@pytest.fixture
def begun(make_trainer, run_epochs):
    """A training after three of six epochs, with a checkpoint to resume from, one sample, and the next one due."""
    trainer = make_trainer(NAME, save_every=1)
    run_epochs(trainer, 3)
    assert trainer.cycle_plan.samples_weights_at(3)
    return trainer


@pytest.mark.parametrize(
    "full", [full_at_the_sample, full_within_the_sample, full_at_the_manifest, full_at_the_renaming]
)
def test_a_full_disk_while_sampling_ends_the_training_with_the_last_checkpoint_intact(
    begun, make_trainer, run_epochs, monkeypatch, full
):
    folder = Path(begun.output_folder)
    before = {path.name: path.read_bytes() for path in folder.glob("checkpoint_*.pth")}
    manifest = (folder / "samples.json").read_bytes()
    with monkeypatch.context() as patch:
        full(patch)
        with pytest.raises(OSError, match="No space left on device"):
            run_epochs(begun, 4)
    for name, content in before.items():
        assert (folder / name).read_bytes() == content
    assert (folder / "samples.json").read_bytes() == manifest
    assert not list(folder.glob(".partial-*"))
    assert_finishes_like_an_undisturbed_one(make_trainer, run_epochs, folder)


def test_a_full_disk_at_the_checkpoint_to_resume_from_keeps_the_one_before(
    begun, make_trainer, run_epochs, monkeypatch
):
    folder = Path(begun.output_folder)
    latest = (folder / "checkpoint_latest.pth").read_bytes()
    save = torch.save

    def full_at_the_checkpoint(content: Any, file: Any) -> None:
        (half_a_file if "optimizer_state" in content else save)(content, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full_at_the_checkpoint)
        with pytest.raises(OSError, match="No space left on device"):
            run_epochs(begun, 4)
    assert (folder / "checkpoint_latest.pth").read_bytes() == latest
    assert [sample.file for sample in read_manifest(folder)] == SAMPLES[:2]  # of the epoch that is made again
    assert_finishes_like_an_undisturbed_one(make_trainer, run_epochs, folder)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks a process with torch in it")
@pytest.mark.parametrize("moment", ["within the sample", "between sample and manifest"])
def test_a_training_killed_while_it_samples_continues(begun, make_trainer, run_epochs, monkeypatch, moment):
    folder = Path(begun.output_folder)

    def killed(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def killed_half_way(_: Any, file: Any) -> None:
        file.write(b"PK\x03\x04 the beginning")
        file.flush()
        killed()

    child = os.fork()
    if child == 0:
        if moment == "within the sample":
            monkeypatch.setattr(torch, "save", killed_half_way)
        else:
            monkeypatch.setattr(posterior_samples, "write_json", killed)
        try:
            run_epochs(begun, 4)
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert [sample.file for sample in read_manifest(folder)] == SAMPLES[:1]
    if moment == "within the sample":
        assert not (folder / SAMPLES[1]).exists()
    else:
        load_checkpoint(folder / SAMPLES[1])  # whole
    assert resumed(make_trainer, folder).current_epoch == 3
    assert_finishes_like_an_undisturbed_one(make_trainer, run_epochs, folder)


def test_half_written_samples_do_not_outlive_a_new_training(tmp_path):
    for name in (f".partial-{SAMPLES[0]}", SAMPLES[1], ".partial-checkpoint_final.pth", "checkpoint_final.pth"):
        (tmp_path / name).touch()
    remove_samples(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(".partial-checkpoint_final.pth", "checkpoint_final.pth"),
    ]


@pytest.mark.parametrize("content", ["", "{}", '{"samples": [{"file": "a"}]}', '{"samples": 3}', "[]"])
def test_a_manifest_that_is_none_is_named(tmp_path, content):
    (tmp_path / "samples.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"samples\.json must list samples as the training wrote them"):
        read_manifest(tmp_path)


def test_the_posterior_is_not_made_of_a_sample_that_was_exchanged(make_trainer, run_epochs):
    trainer = make_trainer(NAME)
    run_epochs(trainer, 6)
    folder = Path(trainer.output_folder)
    first = load_checkpoint(folder / SAMPLES[0])
    first["network_weights"] = {name: tensor + 1 for name, tensor in first["network_weights"].items()}
    torch.save(first, folder / SAMPLES[0])
    with pytest.raises(CheckpointError, match=rf"SHA-256 of .*{SAMPLES[0]} is not that in samples\.json"):
        trainer.write_posterior()
    assert not (folder / "checkpoint_posterior.pth").exists()
    assert len(json.loads((folder / "samples.json").read_text(encoding="utf-8"))["samples"]) == 3
