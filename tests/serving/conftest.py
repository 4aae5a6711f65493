"""A server with a worker process of its own, asked through the client of its framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nnunet_ext.options import ServerLimits
from nnunet_ext.serving.worker import BuildPredictor
from nnunet_ext.serving.worker_process import WorkerProcess

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the server keeps uploads."""
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


@pytest.fixture
def start(folder: Path) -> Iterator[Callable]:
    """`start(build, token=None, **limits)`: a client of a running server; `client.worker` is its worker."""
    pytest.importorskip("starlette", reason="starlette is not installed: pip install 'nnunet-ext[serve]'")
    pytest.importorskip("python_multipart", reason="python-multipart is not installed")
    from starlette.testclient import TestClient

    from nnunet_ext.serving.app import Server

    with ExitStack() as running:

        def start_server(build: BuildPredictor, *, token: str | None = None, **limits: float) -> TestClient:
            server_limits = ServerLimits(**limits)
            worker = WorkerProcess(build, server_limits.seconds)
            running.callback(worker.close)
            server = Server(worker, server_limits, token, folder)
            client = running.enter_context(TestClient(server.app(), base_url=ADDRESS))
            client.worker = worker
            return client

        yield start_server
