"""A running `nnunet_ext serve`, for load.py: asked by HTTP, its worker killed, its memory read. Linux only."""

from __future__ import annotations

import io
import math
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import httpx

SECONDS_TO_START = 300.0


class RunningServer:
    """A server process and its address."""

    def __init__(self, process: subprocess.Popen, address: str) -> None:
        self.process = process
        self.client = httpx.Client(base_url=address, timeout=SECONDS_TO_START)

    def post(self, path: Path) -> tuple[int, dict[str, bytes]]:
        """Sends a case of one channel; returns the status and the files of the answer but for its row."""
        answer = self.client.post("/predict", files={"0000": (path.name, path.read_bytes())})
        if answer.status_code != 200:
            return answer.status_code, {}
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            return 200, {name: archive.read(name) for name in archive.namelist() if name != "row.json"}

    def worker_pid(self) -> int | None:
        """The process that holds the networks; None while there is none."""
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            for pid in (task / "children").read_text().split():
                with suppress(FileNotFoundError):
                    if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        return int(pid)
        return None

    def kill_worker_after(self, seconds: float) -> Callable[[], bool]:
        """Kills the worker in a moment; what is returned waits for that, and says whether there was one to kill."""
        killed: list[int] = []

        def kill() -> None:
            time.sleep(seconds)
            pid = self.worker_pid()
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

        thread = Thread(target=kill)
        thread.start()

        def wait() -> bool:
            thread.join()
            return bool(killed)

        return wait


@contextmanager
def served(model: Path, log: Path) -> Iterator[RunningServer]:
    """A server of a model on a free port, ready when it is yielded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "nnunet_ext", "serve", "-m", str(model), "--members", "checkpoint_c0_*.pth",
             "-device", "cpu", "--disable_tta", "--port", str(port)],
            stdout=subprocess.DEVNULL, stderr=errors,
        )  # fmt: skip
    try:
        server = RunningServer(process, f"http://127.0.0.1:{port}")
        wait_until_ready(server)
        yield server
    finally:
        process.terminate()
        process.wait()


def wait_until_ready(server: RunningServer) -> None:
    """Waits until the server listens.

    Raises:
        RuntimeError: if it ended instead.
    """
    while True:
        if server.process.poll() is not None:
            raise RuntimeError("The server has ended.")
        with suppress(httpx.TransportError):
            if server.client.get("/health").json()["status"] == "ready":
                return
        time.sleep(0.1)


def peak_mib(pid: int | None) -> float:
    """The largest resident set of a process so far, in MiB; NaN if it has ended.

    Not `ru_maxrss`, which begins with the size of the process that started it.
    """
    with suppress(FileNotFoundError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return math.nan


def peaks_of(server: RunningServer) -> dict[str, float]:
    """The largest resident sets so far, in MiB."""
    return {"server": peak_mib(server.process.pid), "worker": peak_mib(server.worker_pid())}
