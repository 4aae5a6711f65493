"""Predictions killed as `kill -9` does, at random times: nothing is half written, and continuing completes them.

A fork of this process, which has imported everything, starts in no time. The same with the command and a trained
model is in tests/end_to_end/labels/test_predict.py.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from nnunet_ext.files.atomic import PARTIAL_PREFIX
from nnunet_ext.inference import EnsemblePredictor
from nnunet_ext.prediction_folder.case_table import read_cases
from nnunet_ext.prediction_folder.output_lock import PREFIX

CASES = [f"c{number}" for number in range(4)]
SLOW_TESTS = os.environ.get("NNUNET_EXT_SLOW_TESTS", "")
slow = [
    pytest.mark.slow,
    pytest.mark.skipif(not SLOW_TESTS, reason="NNUNET_EXT_SLOW_TESTS is not set"),
]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks a process with torch in it")


@pytest.fixture
def run(make_model_folder, make_image, tmp_path):
    """`run(output)`: continues the prediction in a folder with all that it can write; returns the report."""
    for seed, case in enumerate(CASES):
        images = make_image(tmp_path / "images", case, shape_zyx=(3, 30, 30), seed=seed)
    predictor = EnsemblePredictor.from_model_folders(make_model_folder(folds=(0, 1)), device="cpu", allow_tqdm=False)

    def predict(output: Path):
        return predictor.predict_from_files(
            images, output, True, False, maps=("entropy", "mutual_information"), save_members=True
        )

    return predict


def results(folder: Path) -> dict[str, bytes]:
    """The files under final names, but the table and the lock's."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith((PARTIAL_PREFIX, PREFIX)) for part in path.relative_to(folder).parts)
        and path.name != "cases.csv"
    }


def killed_after(seconds: float, run, output: Path) -> bool:
    """Runs in a fork that is killed after a time; False if it had ended before."""
    child = os.fork()
    if child == 0:
        try:
            run(output)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=slow)])
def test_killed_predictions_leave_whole_files_and_continue_to_the_same_result(run, tmp_path, kills):
    started = time.monotonic()
    assert run(tmp_path / "expected").failed == {}
    duration = time.monotonic() - started
    expected = results(tmp_path / "expected")
    rows = read_cases(tmp_path / "expected" / "cases.csv")

    times = random.Random(kills)
    killed, output, left_by_kills = 0, tmp_path / "killed 0", set()
    while killed < kills:
        was_killed = killed_after(times.uniform(0, 1.1 * duration), run, output)
        found = results(output) if output.is_dir() else {}
        assert found.items() <= expected.items(), "a file under a final name is not whole"
        if (output / "cases.csv").is_file():
            assert all(row in rows for row in read_cases(output / "cases.csv"))
        if was_killed:
            killed += 1
            left_by_kills.add(len(found))
            if times.random() < 0.3:  # else the next kill hits the continued run
                continue
        run(output)
        assert results(output) == expected
        assert read_cases(output / "cases.csv") == rows
        assert not [path.name for path in output.rglob(".*")]
        output = tmp_path / f"killed {killed}"
    assert len(left_by_kills) > kills // 10, "the kills fell into the same moment"


def test_the_record_of_a_run_is_complete_whenever_it_is_killed(run, tmp_path):
    for seconds in (0.005, 0.01, 0.02, 0.05):
        killed_after(seconds, run, tmp_path / "out")
        for path in (tmp_path / "out").glob("[!.]*.json"):  # a name with a dot is a file that was being written
            json.loads(path.read_text(encoding="utf-8"))
