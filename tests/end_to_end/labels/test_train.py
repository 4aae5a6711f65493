"""Stock nnUNetv2_train, in a process with nothing but the line of `nnunet_ext env`, and `nnunet_ext train`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_ext.files.checkpoints import load_checkpoint
from nnunet_ext.trainers.names import TrainerNameError

TRAINER = "nnUNetTrainerCyclical2_Restart10_4epochs_2iters"
# T = 4, M = 2: T_c = 2 and the plateau begins at floor(0.8 * 2) = 1, so epochs 1 and 3 are sampled.
SAMPLES = ["checkpoint_c0_e0001.pth", "checkpoint_c1_e0003.pth"]
# Each cycle opens with 0.1, then 0.01 * (1 - 1/4)^0.9.
RATES = [0.1, 0.01 * 0.75**0.9] * 2


@pytest.fixture(scope="module")
def fold_folder(plain_dataset, run_command, env_line):
    """The first fold, trained by the stock command."""
    run_command(
        *("nnUNetv2_train", plain_dataset.number, "2d", 0, "-tr", TRAINER, "-p", plain_dataset.plans),
        *("-device", "cpu"),
        **env_line,
    )
    return plain_dataset.model(TRAINER, "2d") / "fold_0"


def checkpoint_names(fold_folder):
    return sorted(path.name for path in fold_folder.glob("*.pth"))


def test_stock_training_leaves_samples_the_posterior_and_the_mean_beside_its_own_checkpoints(fold_folder):
    own = ["checkpoint_best.pth", "checkpoint_final.pth"]
    assert checkpoint_names(fold_folder) == sorted([*own, *SAMPLES, "checkpoint_posterior.pth", "checkpoint_swa.pth"])


def test_no_half_written_file_stays(fold_folder):
    assert list(fold_folder.glob(".partial-*")) == []


def test_the_manifest_describes_each_sample(fold_folder):
    samples = json.loads((fold_folder / "samples.json").read_text(encoding="utf-8"))["samples"]
    assert [sample["file"] for sample in samples] == SAMPLES
    assert [(sample["cycle"], sample["epoch"], sample["epoch_in_cycle"]) for sample in samples] == [
        (0, 1, 1),
        (1, 3, 1),
    ]
    assert [sample["learning_rate"] for sample in samples] == pytest.approx([RATES[1], RATES[3]])
    for sample in samples:
        assert sample["sha256"] == hashlib.sha256((fold_folder / sample["file"]).read_bytes()).hexdigest()


def test_every_epoch_was_trained_at_the_rate_of_the_paper(fold_folder):
    assert load_checkpoint(fold_folder / "checkpoint_final.pth")["logging"]["lrs"] == pytest.approx(RATES)


@pytest.mark.parametrize(
    ("name", "trainer"),
    [
        ("checkpoint_final.pth", TRAINER),
        ("checkpoint_swa.pth", TRAINER),
        (SAMPLES[0], TRAINER),
        ("checkpoint_posterior.pth", "nnUNetTrainer_posterior2"),
    ],
)
def test_each_checkpoint_names_the_trainer_that_builds_its_network(fold_folder, name, trainer):
    assert load_checkpoint(fold_folder / name)["trainer_name"] == trainer


def test_the_final_validation_ran_on_the_held_out_case(fold_folder, plain_dataset):
    summary = json.loads((fold_folder / "validation" / "summary.json").read_text(encoding="utf-8"))
    assert 0 <= summary["foreground_mean"]["Dice"] <= 1
    predicted = nibabel.load(fold_folder / "validation" / "tumour_000.nii.gz")
    truth = nibabel.load(plain_dataset.raw / "labelsTr" / "tumour_000.nii.gz")
    assert len(summary["metric_per_case"]) == 1
    assert predicted.shape == truth.shape
    np.testing.assert_allclose(predicted.affine, truth.affine, atol=1e-4)


def test_nnunet_ext_train_hands_all_flags_to_nnunet(fold_folder, plain_dataset, run_here):
    # --val --npz: validates again, with probabilities this time, and trains nothing
    validation = fold_folder / "validation"
    (validation / "summary.json").unlink()
    before = {name: (fold_folder / name).stat().st_mtime_ns for name in checkpoint_names(fold_folder)}
    flags = ["-tr", TRAINER, "-p", plain_dataset.plans, "--val", "--npz", "-device", "cpu"]
    assert run_here("train", plain_dataset.number, "2d", 0, *flags) == 0
    assert (validation / "summary.json").is_file()
    assert (validation / "tumour_000.npz").is_file()
    assert {name: (fold_folder / name).stat().st_mtime_ns for name in checkpoint_names(fold_folder)} == before


def test_a_mistyped_part_ends_a_stock_training_with_the_closest_known_one(plain_dataset, train_here):
    with pytest.raises(TrainerNameError, match="Did you mean Cyclical"):
        train_here(plain_dataset, "2d", 0, "nnUNetTrainerCyclicle2")


def test_a_mistyped_part_ends_nnunet_ext_train_with_status_1(plain_dataset, run_here, capsys):
    assert run_here("train", plain_dataset.number, "2d", 0, "-tr", "nnUNetTrainerCyclicle2", "-device", "cpu") == 1
    assert "Did you mean Cyclical" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not os.environ.get("NNUNET_EXT_SLOW_TESTS"), reason="NNUNET_EXT_SLOW_TESTS is not set")
@pytest.mark.skipif(not hasattr(signal, "SIGUSR2"), reason="jobs need the signals of Linux and macOS")
def test_members_and_folds_are_trained_calibrated_and_taught_with_as_jobs(plain_dataset, run_command, tmp_path):
    pytest.importorskip("submitit", reason="needs the extra slurm")
    trainer, cpu = "nnUNetTrainer_1epochs_1iters", ["-device", "cpu"]

    def as_jobs(*words: object) -> int:
        """Submits a command to this machine, waits until all its jobs have succeeded, and counts them."""
        job = ["--submit", "local", "--gpus", 0, "--job-logs", tmp_path]
        printed = run_command("nnunet_ext", *words, *cpu, *job).stdout
        logs = [Path(path) for path in re.findall(r"^    log: (.*)$", printed, re.MULTILINE)]
        end = time.monotonic() + 500
        while not all(log.is_file() and "after successful completion" in log.read_text("utf-8") for log in logs):
            assert time.monotonic() < end, [log.read_text("utf-8")[-2000:] for log in logs if log.is_file()]
            time.sleep(0.2)
        return len(logs)

    dataset = ["-p", plain_dataset.plans]
    assert as_jobs("train", plain_dataset.number, "2d", 0, 1, "-tr", trainer, "--members", 2, *dataset) == 4
    first, second = (plain_dataset.model(f"{trainer}_member{k}", "2d") for k in range(2))
    weights = [
        load_checkpoint(model / "fold_0" / "checkpoint_final.pth")["network_weights"] for model in (first, second)
    ]
    name = next(iter(weights[0]))
    assert not weights[0][name].equal(weights[1][name])

    assert as_jobs("calibrate", "-m", first) == 1
    assert (first / "calibration.json").is_file()
    assert as_jobs("teach", "-d", plain_dataset.number, "-c", "2d", "-m", first, *dataset) == 1
    assert [*first.parents[2].glob(f"nnUNet_preprocessed/*/{plain_dataset.plans}_2d_teacher/*")]
