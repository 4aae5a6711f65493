"""Command lines as jobs: submitit's local executor runs them, and a recorded `sbatch` shows what SLURM is handed."""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
import time
from pathlib import Path

import pytest

from nnunet_ext.cli import main
from nnunet_ext.cluster.command_job import AUGMENTATION, RESTARTS, CommandJob
from nnunet_ext.cluster.submission import SubmissionError, submit
from nnunet_ext.options import JobOptions
from nnunet_ext.prediction_folder.case_table import read_cases

submitit = pytest.importorskip("submitit", reason="needs the extra slurm")
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR2"), reason="jobs need the signals of Linux and macOS")

PYTHON = (sys.executable,)


@pytest.fixture
def local(tmp_path: Path) -> JobOptions:
    return JobOptions(place="local", logs=tmp_path / "logs", gpus=0)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster that accepts every job and runs none; the script that it got last."""
    programs, script = tmp_path / "bin", tmp_path / "script.sh"
    programs.mkdir()
    texts = {"sbatch": f'cp "$1" "{script}"\necho "Submitted batch job 4711"', "srun": "exit 0"}
    for name, text in texts.items():
        program = programs / name
        program.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    return script


def python_job(code: str, continuing: str = "", **fields) -> CommandJob:
    return CommandJob(("-c", code), ("-c", continuing or code), program=PYTHON, **fields)


# --- on this machine ---


def test_a_job_runs_the_command_and_keeps_its_output(local):
    (job,) = submit([CommandJob(("env", "--shell", "sh"), ())], local, "name")
    job.handle.result()
    log = job.log.read_text(encoding="utf-8")
    assert "\nnnunet_ext env --shell sh\n" in f"\n{log}"
    assert "export nnUNet_extTrainer=" in log


def test_a_job_runs_where_it_was_submitted_with_as_many_augmentation_processes_as_cores(local, tmp_path, monkeypatch):
    monkeypatch.delenv(AUGMENTATION, raising=False)
    code = f"import os; print(os.getcwd(), os.environ['{AUGMENTATION}'])"
    (job,) = submit([python_job(code, folder=tmp_path, cpus=3)], local, "name")
    job.handle.result()
    assert f"\n{tmp_path} 3\n" in job.log.read_text(encoding="utf-8")


def test_a_command_that_fails_is_a_failed_job(local):
    (job,) = submit([python_job("import sys; sys.exit('no such thing')")], local, "name")
    assert "returned non-zero exit status 1" in str(job.handle.exception())
    assert "no such thing" in job.log.read_text(encoding="utf-8")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the job's process in /proc")
def test_a_job_that_is_warned_of_its_time_limit_goes_on_with_the_continuing_command(local):
    (job,) = submit([python_job("print('begun'); import time; time.sleep(300)", "print('continued')")], local, "name")
    wait_for(lambda: job.log.is_file() and "begun" in job.log.read_text(encoding="utf-8"))
    (task,) = Path(f"/proc/{job.id}/task/{job.id}/children").read_text(encoding="utf-8").split()
    os.kill(int(task), signal.SIGUSR2)
    job.handle.result()
    assert "continued" in job.log.read_text(encoding="utf-8")


def wait_for(what, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_parts_of_a_prediction_as_jobs_write_what_one_process_writes(
    make_model_folder, make_image, tmp_path, capsys
):
    for seed, case in enumerate("abc"):
        images = make_image(tmp_path / "images", case, shape_zyx=(3, 30, 30), seed=seed)
    words = ["predict", "-i", images, "-m", make_model_folder(), "-device", "cpu", "--disable_progress_bar"]
    words = list(map(str, words))
    assert main([*words, "-o", str(tmp_path / "here")]) == 0
    capsys.readouterr()
    parts = ["-o", str(tmp_path / "jobs"), "-num_parts", "2", "--submit", "local", "--gpus", "0"]
    assert main([*words, *parts, "--job-logs", str(tmp_path / "logs")]) == 0

    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "2 jobs submitted"
    logs = [Path(line.removeprefix("    log: ")) for line in lines if line.startswith("    log: ")]
    assert [line.split(" -num_parts ")[1] for line in lines if ": nnunet_ext" in line] == [
        "2 -part_id 0",
        "2 -part_id 1",
    ]
    table = tmp_path / "jobs" / "cases.csv"
    wait_for(lambda: all(log.is_file() and "completed successfully" in log.read_text("utf-8") for log in logs), 200)
    assert read_cases(table) == read_cases(tmp_path / "here" / "cases.csv")
    for case in "abc":
        for file in (f"{case}.nii.gz", f"maps/entropy/{case}.nii.gz"):
            assert (tmp_path / "jobs" / file).read_bytes() == (tmp_path / "here" / file).read_bytes()


# --- what continues ---


def printed_by(job: CommandJob, capfd) -> list[str]:
    job()
    return capfd.readouterr().out.splitlines()[1:]  # after the command line


@pytest.mark.parametrize(("restarts", "expected"), [("0", "begun"), ("1", "continued")])
def test_a_job_that_slurm_put_back_into_the_queue_continues(restarts, expected, monkeypatch, capfd):
    monkeypatch.setenv(RESTARTS, restarts)
    assert printed_by(python_job("print('begun')", "print('continued')"), capfd) == [expected]


def test_a_training_without_a_checkpoint_begins_again(tmp_path, capfd):
    job = python_job("print('begun')", "print('continued')", checkpoints=tmp_path, restarted=True)
    assert printed_by(job, capfd) == ["begun"]
    (tmp_path / "checkpoint_latest.pth").touch()
    assert printed_by(job, capfd) == ["continued"]


# --- on SLURM ---


def test_slurm_gets_one_array_with_what_was_asked_for(slurm, tmp_path, capsys):
    flags = ["--partition", "gpu", "--minutes", "90", "--gpus", "2", "--cpus", "6", "--memory-gb", "48"]
    words = ["predict", "-i", "images", "-o", "out", "-m", "model", "-num_parts", "3"]
    logs = ["--job-logs", str(tmp_path / "logs")]
    assert main([*words, "--submit", *flags, "--sbatch", "account=heart", *logs]) == 0
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", slurm.read_text(encoding="utf-8"), re.M))
    assert options["array"].startswith("0-2")
    asked_for = {"partition": "gpu", "time": "90", "gpus-per-node": "2", "cpus-per-task": "6", "mem": "48GB"}
    assert asked_for.items() <= options.items()
    assert options["account"] == "heart"
    printed = capsys.readouterr().out
    assert "3 jobs submitted" in printed
    assert "4711_2: nnunet_ext predict -i images -o out -m model -num_parts 3 -part_id 2\n" in printed
    assert f"log: {tmp_path}/logs/4711_2_0_log.out\n" in printed


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "-i", "images", "-o", "out", "-m", "model"],
        ["calibrate", "-m", "model", "--recall", "0.8"],
        ["teach", "-d", "27", "-c", "2d", "-m", "model", "-f", "0", "1"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.usefixtures("slurm")
def test_a_command_is_submitted_as_it_was_typed(words, tmp_path, capsys):
    assert main([*words, "--submit", "--minutes", "5", "--job-logs", str(tmp_path)]) == 0
    assert f"  4711: nnunet_ext {' '.join(words)}\n" in capsys.readouterr().out


# --- what is refused ---


def test_without_slurm_nothing_is_submitted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SubmissionError, match="sbatch and srun cannot be found"):
        submit([python_job("")], JobOptions(logs=tmp_path / "logs"), "name")
    assert not (tmp_path / "logs").exists()
