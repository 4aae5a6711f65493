"""A server with a worker process of its own, asked through the client of its framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_predictors import reverses

from nnunet_ext.options import ServerLimits
from nnunet_ext.serving.worker import BuildPredictor
from nnunet_ext.serving.worker_process import WorkerProcess

ADDRESS = "http://127.0.0.1:8000"


@contextmanager
def running_server(folder: Path, build: BuildPredictor, token: str | None = None, **limits: float) -> Iterator[Any]:
    """A client of a running server, with its `worker` and the `folder` where it keeps uploads."""
    pytest.importorskip("starlette", reason="starlette is not installed: pip install 'nnunet-ext[serve]'")
    pytest.importorskip("python_multipart", reason="python-multipart is not installed")
    from starlette.testclient import TestClient

    from nnunet_ext.serving.app import Server

    server_limits = ServerLimits(**limits)
    worker = WorkerProcess(build, server_limits.seconds)
    server = Server(worker, server_limits, token, folder)
    with TestClient(server.app(), base_url=ADDRESS) as client:
        client.worker, client.folder = worker, folder
        yield client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server that reverses what it gets, without a token and with the default limits, for all tests of a file."""
    with running_server(tmp_path_factory.mktemp("uploads"), reverses) as shared:
        yield shared


@pytest.fixture
def start(tmp_path: Path) -> Callable:
    """`with start(build, token=None, **limits) as client`: a server of one's own."""

    def start_server(build: BuildPredictor, **options: Any) -> Any:
        (tmp_path / "uploads").mkdir()
        return running_server(tmp_path / "uploads", build, **options)

    return start_server
