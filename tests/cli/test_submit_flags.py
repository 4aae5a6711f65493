"""The flags of a job: read, taken out of a command line, and refused where there is no job."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_ext.cli import build_parser, main
from nnunet_ext.cli.submit_flags import chosen_job, without_submit_flags
from nnunet_ext.options import JobOptions

PREDICT = ["predict", "-i", "images", "-o", "out", "-m", "model"]


def job_of(*flags: str) -> JobOptions | None:
    return chosen_job(build_parser().parse_args([*PREDICT, *flags]))


def test_without_the_flag_there_is_no_job():
    assert job_of() is None


def test_slurm_is_where_jobs_go_unless_told_otherwise():
    assert job_of("--submit") == JobOptions()
    assert job_of("--submit", "local") == JobOptions(place="local")


def test_what_a_job_asks_for():
    flags = ["--minutes", "5", "--gpus", "0", "--memory-gb", "8", "--sbatch", "account=heart", "--sbatch", "qos=a=b"]
    assert job_of("--submit", *flags, "--job-logs", "logs") == JobOptions(
        minutes=5, gpus=0, memory_gb=8, sbatch={"account": "heart", "qos": "a=b"}, logs=Path("logs")
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--minutes", "5"], "--minutes asks for something of a job; found no --submit"),
        (["--job-logs", "here"], "--job-logs asks for something of a job"),
        (["--submit", "--cpus", "0"], "--cpus must be at least 1; found 0"),
        (
            ["--submit", "--sbatch", "exclusive"],
            "--sbatch takes NAME=VALUE",
        ),
        (["--submit", "-num_parts", "3", "-part_id", "1"], "Leave out -part_id"),
        (["--sub"], "must be written in full"),
        (["--submit", "--part", "gpu"], "must be written in full"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_a_job_is_refused(flags, said, capsys):
    assert main([*PREDICT, *flags]) == 1
    assert said in capsys.readouterr().err


def test_the_command_of_a_job_has_all_other_words_in_their_order():
    words = "-i images --submit -m a --cpus 2 -m b --c --partition=x -p P -f 0 1 all"
    assert " ".join(without_submit_flags(words.split())) == "-i images -m a -m b --c -p P -f 0 1 all"
