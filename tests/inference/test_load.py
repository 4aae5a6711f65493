"""A few cases as in benchmarks/load.py: bad files in between, kills, a full disk; nothing lost, nothing double."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from load import content, small_disk
from load_cases import write_cases

from nnunet_ext.inference import EnsemblePredictor
from nnunet_ext.prediction_folder.case_table import read_cases

CASES, KILLS = 30, 3
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks a process with torch in it")


@pytest.fixture
def predict(make_model_folder: Any, tmp_path: Path) -> Any:
    """`predict(output)`: continues the prediction of all cases, and returns the outcome."""
    write_cases(tmp_path / "images", CASES)
    predictor = EnsemblePredictor.from_model_folders(make_model_folder(), device="cpu", allow_tqdm=False, tta="none")

    def run(output: Path) -> Any:
        return predictor.predict_from_files(tmp_path / "images", output, overwrite=False)

    return run


def require_all(output: Path, expected: Path, outcome: Any) -> None:
    """The same files, every good case in one row, and every bad case with its reason."""
    assert content(output) == content(expected)
    good = [path.name.removesuffix(".nii.gz") for path in expected.glob("*.nii.gz")]
    assert Counter(row["case"] for row in read_cases(output / "cases.csv")) == dict.fromkeys(good, 1)
    assert len(good) + len(outcome.failed) == CASES
    assert all("found" in reason and "expected" in reason for reason in outcome.failed.values())


def test_kills_and_bad_files_lose_no_case_and_double_none(predict: Any, tmp_path: Path) -> None:
    started = time.monotonic()
    outcome = predict(tmp_path / "expected")
    duration = time.monotonic() - started
    require_all(tmp_path / "expected", tmp_path / "expected", outcome)
    assert len(outcome.failed) == CASES / 10
    times = random.Random(0)
    for _ in range(KILLS):
        child = os.fork()
        if child == 0:
            try:
                predict(tmp_path / "killed")
            finally:
                os._exit(0)
        time.sleep(times.uniform(0, duration / KILLS))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    require_all(tmp_path / "killed", tmp_path / "expected", predict(tmp_path / "killed"))


def test_a_disk_that_fills_up_and_gets_room_loses_no_case(predict: Any, tmp_path: Path) -> None:
    predict(tmp_path / "expected")
    needed = sum(-(-len(data) // 4096) * 4096 for data in content(tmp_path / "expected").values())
    with small_disk(tmp_path / "disk", needed // 2) as grow:
        if grow is None:
            pytest.skip("a small file system can be mounted only by root")
        output = tmp_path / "disk" / "out"
        full = predict(output)
        assert full.predicted
        assert len(full.failed) > CASES / 10
        grow(4 * needed)
        require_all(output, tmp_path / "expected", predict(output))
