"""The worker killed as `kill -9` does, at random times: every request still gets the result of an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")


def results_while_killed(client, content: bytes, kills: int) -> tuple[list[bytes], int]:
    """The answers to as many requests, with one SIGKILL at a random time of each; and how many were hit by it."""

    def post() -> bytes:
        answer = client.post("/predict", files={"0000": ("a.nii.gz", content)})
        assert answer.status_code == 200, answer.text
        return answer.content

    found = [post()]
    started = time.monotonic()
    found.append(post())
    duration = time.monotonic() - started
    times, killed, hit = random.Random(kills), 0, 0
    with ThreadPoolExecutor(1) as thread:
        while killed < kills:
            waiting = thread.submit(post)
            time.sleep(times.uniform(0, duration))
            pid, was_done = client.worker.pid, waiting.done()
            with suppress(ProcessLookupError):  # the last kill left nobody, and the next worker has not started
                os.kill(pid, signal.SIGKILL)
                killed += 1
            while client.worker.pid == pid and client.worker.is_alive():
                time.sleep(0.001)  # until it has ended: a request is repeated once, so two kills must not hit one
            found.append(waiting.result())
            hit += not was_done and client.worker.pid != pid
    return found, hit


@needs_kill
def test_a_killed_worker_changes_no_result(start):
    with start(slow) as client:
        found, hit = results_while_killed(client, b"abc", kills=4)
    assert set(found) == {b"cba"}
    assert hit > 0


def test_a_stopped_worker_is_replaced_even_if_it_seems_to_live(start, monkeypatch):
    with start(slow) as client:
        client.worker.stop()
        monkeypatch.setattr(client.worker, "is_alive", lambda: True)
        assert client.post("/predict", files={"0000": ("a.nii.gz", b"abc")}).content == b"cba"


@needs_kill
@pytest.mark.parametrize("kills", [pytest.param(50, marks=slow_test)])
def test_killed_workers_with_a_network_change_no_result(make_model_folder, make_image, tmp_path, start, kills):
    images = make_image(tmp_path / "images", shape_zyx=(3, 30, 30))
    options = ServeOptions(
        model=ModelChoice(folders=(make_model_folder(folds=(0, 1)),)),
        ensemble=EnsembleOptions(device="cpu", allow_tqdm=False),
        output=OutputOptions(maps=("entropy", "mutual_information")),
    )
    build = partial(loaded_predictor, options)
    with start(build) as client:
        found, hit = results_while_killed(client, (images / "case_0000.nii.gz").read_bytes(), kills)
    build()(images, tmp_path / "undisturbed.zip")  # in this process
    assert set(found) == {(tmp_path / "undisturbed.zip").read_bytes()}
    assert len(found) >= kills + 2
    assert hit > kills // 2


def test_a_model_that_cannot_be_loaded_says_why():
    with pytest.raises(WorkerStartError, match="no such model"):
        WorkerProcess(cannot_be_built, seconds=60)


def test_the_worker_ends_with_the_server():
    worker = WorkerProcess(reverses, seconds=60)
    worker._connection.close()  # as when the server's process ends
    ends = time.monotonic() + 20
    while worker.is_alive() and time.monotonic() < ends:
        time.sleep(0.05)
    assert not worker.is_alive()
