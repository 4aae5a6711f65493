"""Cases handed out to workers of a Ray cluster on this machine, some of which end in the middle of a case."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from toy_workers import ToyCase, ToyWorker

from nnunet_ext.cluster.hand_out import ClusterError, HandOut

ray = pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


@pytest.fixture(scope="module", autouse=True)
def _cluster(local_ray):
    """Its processes find `toy_workers`."""
    with local_ray(PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])):
        yield


@pytest.fixture
def predicted(tmp_path):
    """`predicted(names)`: the outcomes by case, from two workers with two cases each; two losses end a case."""

    def predict(*names: str, workers: int = 2) -> dict[str, str]:
        toy = ray.remote(ToyWorker).options(num_cpus=1, max_concurrency=2)
        hand_out = HandOut(lambda: toy.remote(tmp_path), workers=workers, at_once=2, most_losses=2)
        outcomes = hand_out.outcomes([ToyCase(name) for name in names])
        return {case.name: outcome.failed.get(case.name, "predicted") for case, outcome in outcomes}

    return predict


def test_every_case_is_predicted_once(predicted, tmp_path):
    names = [f"c{number}" for number in range(8)]
    assert predicted(*names) == dict.fromkeys(names, "predicted")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.0" for name in names]


def test_a_case_that_fails_is_not_repeated(predicted, tmp_path):
    assert predicted("bad", "good") == {"bad": "it is bad", "good": "predicted"}
    assert [path.name for path in tmp_path.glob("bad.*")] == ["bad.0"]


def test_a_case_that_lost_its_worker_is_predicted_by_another(predicted):
    assert predicted("unlucky", "c0", "c1") == dict.fromkeys(["unlucky", "c0", "c1"], "predicted")


def test_a_case_that_ends_every_worker_is_given_up_and_takes_no_other_with_it(predicted, tmp_path):
    names = ["deadly", "slow0", "slow1", "slow2", "slow3"]
    found = predicted(*names)
    assert "deadly has lost 2" in found.pop("deadly")
    assert found == dict.fromkeys(names[1:], "predicted")
    assert len([*tmp_path.glob("deadly.*")]) == 2
    assert all(len([*tmp_path.glob(f"{name}.*")]) <= 2 for name in names[1:])  # lost with it once, then not again


def test_workers_end_with_the_run(predicted):
    predicted("unlucky", "c0", "c1")
    end = time.monotonic() + 60
    while ray.available_resources().get("CPU") != 2:  # both cores are free again
        assert time.monotonic() < end
        time.sleep(0.1)


def test_models_that_cannot_be_loaded_end_the_run_with_the_reason(predicted, tmp_path):
    (tmp_path / "no models").touch()
    with pytest.raises(ClusterError, match="there is no such model"):
        predicted("c0", "c1", workers=1)


def test_workers_that_end_while_they_load_end_the_run(predicted, tmp_path):
    (tmp_path / "no memory").touch()
    with pytest.raises(ClusterError, match="it ended 3 times while it loaded the models"):
        predicted("c0", workers=1)
