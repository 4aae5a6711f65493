"""Runs the application; starlette, uvicorn and python-multipart are an extra, imported when they are needed."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from nnunet_ext.machine.extras import imported
from nnunet_ext.options.serving import ServeOptions
from nnunet_ext.serving.worker import BuildPredictor
from nnunet_ext.serving.worker_process import WorkerProcess

MOST_CONNECTIONS = 64
SECONDS_TO_CLOSE = 5


def require_packages() -> None:
    """Imports the packages of the extra.

    Raises:
        ExtraMissingError: if one is not installed.
    """
    for name in ("starlette", "uvicorn", "python_multipart"):
        imported(name, extra="serve", needed_by="nnunet_ext serve")


def run_server(build: BuildPredictor, options: ServeOptions, loaded: Callable[[dict[str, Any]], None]) -> None:
    """Loads the model in a worker process, then serves until it is interrupted.

    Args:
        build: makes the predictor, in the worker.
        options: where to listen, and the limits.
        loaded: called with the predictor's description just before the server listens.

    Raises:
        ExtraMissingError: if the packages of the extra are not installed.
        WorkerStartError: if the model cannot be loaded.
    """
    require_packages()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up, as after Ctrl-C
    import uvicorn

    from nnunet_ext.serving.app import Server

    with (
        tempfile.TemporaryDirectory(prefix="nnunet_ext-") as folder,
        closing(WorkerProcess(build, options.limits.seconds)) as worker,
    ):
        loaded(worker.description)
        server = Server(worker, options.limits, options.token, Path(folder))
        uvicorn.run(
            server.app(),
            host=options.host,
            port=options.port,
            log_level="warning",
            access_log=False,  # paths hold nothing, but who asked when is nobody's business here
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=SECONDS_TO_CLOSE,
        )
