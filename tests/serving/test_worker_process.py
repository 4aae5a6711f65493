"""The worker killed as `kill -9` does, at random times: every request still gets the result of an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from fake_predictors import cannot_be_built, reverses, slow

from nnunet_ext.commands.serve import loaded_predictor
from nnunet_ext.options import EnsembleOptions, ModelChoice, OutputOptions, ServeOptions
from nnunet_ext.serving.worker_process import WorkerProcess, WorkerStartError

SLOW_TESTS = os.environ.get("NNUNET_EXT_SLOW_TESTS", "")
slow_test = [
    pytest.mark.slow,
    pytest.mark.skipif(not SLOW_TESTS, reason="NNUNET_EXT_SLOW_TESTS is not set"),
    pytest.mark.timeout(3000),
]
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")


def results_while_killed(worker: WorkerProcess, images, tmp_path, kills: int) -> tuple[list[bytes], int]:
    """The results of `kills` requests, with one SIGKILL at a random time of each; and how many died of it."""
    started = time.monotonic()
    (tmp_path / "undisturbed").mkdir()
    expected = worker.predict(images, tmp_path / "undisturbed").read_bytes()
    duration = time.monotonic() - started
    times = random.Random(kills)
    found, died = [expected], 0
    with ThreadPoolExecutor(1) as thread:
        for number in range(kills):
            folder = tmp_path / str(number)
            folder.mkdir()
            worker.revive()
            pid = worker.pid
            waiting = thread.submit(worker.predict, images, folder)
            time.sleep(times.uniform(0, duration))
            os.kill(pid, signal.SIGKILL)
            found.append(waiting.result().read_bytes())
            died += worker.pid != pid
    return found, died


def test_a_killed_worker_changes_no_result(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "case_0000.nii.gz").write_bytes(b"abc")
    worker = WorkerProcess(slow, seconds=60)
    found, died = results_while_killed(worker, tmp_path / "images", tmp_path, kills=5)
    worker.close()
    assert set(found) == {b"cba"}
    assert died > 0


@pytest.mark.parametrize("kills", [pytest.param(50, marks=slow_test)])
def test_killed_workers_with_a_network_change_no_result(make_model_folder, make_image, tmp_path, kills):
    images = make_image(tmp_path / "images", shape_zyx=(3, 30, 30))
    options = ServeOptions(
        model=ModelChoice(folders=(make_model_folder(folds=(0, 1)),)),
        ensemble=EnsembleOptions(device="cpu", allow_tqdm=False),
        output=OutputOptions(maps=("entropy", "mutual_information")),
    )
    worker = WorkerProcess(partial(loaded_predictor, options), seconds=300)
    found, died = results_while_killed(worker, images, tmp_path, kills)
    worker.close()
    assert len(found) == kills + 1
    assert len(set(found)) == 1
    assert died > kills // 2


def test_a_model_that_cannot_be_loaded_says_why():
    with pytest.raises(WorkerStartError, match="no such model"):
        WorkerProcess(cannot_be_built, seconds=60)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_worker_ends_with_the_server(tmp_path):
    worker = WorkerProcess(reverses, seconds=60)
    pid = worker.pid
    worker._connection.close()  # what the end of the server's process does
    ends = time.monotonic() + 20
    while worker.is_alive() and time.monotonic() < ends:
        time.sleep(0.05)
    assert not worker.is_alive()
    assert not os.path.exists(f"/proc/{pid}")
