"""A folder predicted by the workers of a Ray cluster: the same bytes as one process, also when workers are killed."""

from __future__ import annotations

import json
import logging
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from nnunet_ext.commands.predict import predict_folder
from nnunet_ext.files.atomic import PARTIAL_PREFIX
from nnunet_ext.inference.engine import EnsembleEngine
from nnunet_ext.options import ClusterOptions, EnsembleOptions, ModelChoice, OutputOptions, PredictOptions

ray = pytest.importorskip("ray", reason="needs the extra ray")
SLOW_TESTS = os.environ.get("NNUNET_EXT_SLOW_TESTS", "")
slow = [
    pytest.mark.slow,
    pytest.mark.skipif(not SLOW_TESTS, reason="NNUNET_EXT_SLOW_TESTS is not set"),
    pytest.mark.timeout(7200),
]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")

GOOD = [f"c{number}" for number in range(5)]
ENSEMBLE = EnsembleOptions(device="cpu", allow_tqdm=False)
OUTPUT = OutputOptions(maps=("entropy", "mutual_information", "variance"), save_probabilities=True, save_members=True)


class Undisturbed(NamedTuple):
    """The files of a run, the messages of its failed cases, and how long it took."""

    files: dict[str, bytes]
    failed: dict[str, str]
    seconds: float


@pytest.fixture(scope="module")
def address(local_ray) -> Iterator[str]:
    """Of a cluster on this machine."""
    with local_ray():
        yield ray.get_runtime_context().gcs_address


@pytest.fixture
def options(make_model_folder, make_image, tmp_path) -> PredictOptions:
    """Five good cases and one whose file was cut off, two members, two workers."""
    for seed, case in enumerate([*GOOD, "broken"]):
        images = make_image(tmp_path / "images", case, shape_zyx=(3, 30, 30), seed=seed)
    broken = images / "broken_0000.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-40])
    return PredictOptions(
        images=images,
        results=tmp_path / "cluster",
        model=ModelChoice(folders=(make_model_folder(folds=(0, 1)),)),
        ensemble=ENSEMBLE,
        output=OUTPUT,
        cluster=ClusterOptions(cores=1),
    )


@pytest.fixture
def undisturbed(options, tmp_path) -> Undisturbed:
    """What one process with one thread does."""
    engine = EnsembleEngine.from_model_folders(options.model.folders, ENSEMBLE)
    started = time.monotonic()
    outcome = engine.predict_from_files(options.images, tmp_path / "one process", OUTPUT)
    return Undisturbed(files_of(tmp_path / "one process"), outcome.failed, time.monotonic() - started)


def files_of(folder: Path) -> dict[str, bytes]:
    """All files of a folder, the table among them; of the record what describes the ensemble, not the command."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    record = json.loads(files.pop("predict_args.json"))
    del record["arguments"]
    return files | {"predict_args.json": json.dumps(record).encode()}


class Killer(logging.Handler):
    """Sends SIGKILL to each worker at a random time after it has loaded the models, up to a number of kills."""

    def __init__(self, kills: int, longest_wait: float) -> None:
        super().__init__()
        self.left, self.longest_wait, self.hit = kills, longest_wait, 0
        self._times, self._workers = random.Random(kills), queue.SimpleQueue()
        threading.Thread(target=self._kill, daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        if "has loaded the models" in record.msg:
            self._workers.put(record.args[0])
        self.hit += "was lost" in record.msg

    def _kill(self) -> None:
        while self.left > 0:
            pid = self._workers.get()
            time.sleep(self._times.uniform(0, self.longest_wait))
            with suppress(ProcessLookupError):  # its run had ended
                os.kill(pid, signal.SIGKILL)
                self.left -= 1


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=slow)])
def test_killed_workers_change_no_byte(options, undisturbed, tmp_path, kills, caplog):
    caplog.set_level(logging.INFO, logger="nnunet_ext.cluster")
    killer = Killer(kills, longest_wait=2 * undisturbed.seconds)
    logging.getLogger("nnunet_ext.cluster").addHandler(killer)
    runs = 0
    try:
        while killer.left > 0:
            results = tmp_path / f"killed {runs}"
            outcome = predict_folder(replace(options, results=results))
            assert outcome.failed == undisturbed.failed
            assert outcome.predicted == GOOD
            assert files_of(results) == undisturbed.files
            assert not [path.name for path in results.rglob(f"{PARTIAL_PREFIX}*")]
            runs += 1
    finally:
        logging.getLogger("nnunet_ext.cluster").removeHandler(killer)
    assert killer.hit > kills // 3, "most kills hit workers that had nothing left to do"
    print(f"{kills} kills in {runs} runs, {killer.hit} of them while cases were left; {undisturbed.seconds:.2f} s")


@pytest.mark.slow
@pytest.mark.skipif(not SLOW_TESTS, reason="NNUNET_EXT_SLOW_TESTS is not set")
def test_a_run_through_an_address_continues_what_is_missing(address, options, undisturbed):
    engine = EnsembleEngine.from_model_folders(options.model.folders, ENSEMBLE)
    engine.predict_from_files(options.images, options.results, OUTPUT)
    (options.results / "c3.nii.gz").unlink()
    (options.images / "broken_0000.nii.gz").unlink()
    flags = ["--maps", *OUTPUT.maps, "--save_probabilities", "--save_members", "-device", "cpu"]
    command = ["predict", "-i", options.images, "-o", options.results, "-m", options.model.folders[0], *flags]
    cluster = ["--continue_prediction", "--cluster", f"ray:{address}", "--cluster-cpus", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "nnunet_ext", *map(str, [*command, *cluster])], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "1 predicted, 4 complete before, 0 failed" in done.stdout
    assert "1/1" in done.stderr  # one bar for all workers
    assert files_of(options.results) == undisturbed.files
