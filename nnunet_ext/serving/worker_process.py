"""The worker as the server sees it: started, asked, and replaced when it ends or takes too long."""

from __future__ import annotations

import logging
import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from nnunet_ext.serving.refusal import Refusal
from nnunet_ext.serving.worker import BuildPredictor, Message, run_worker

logger = logging.getLogger(__name__)

SECONDS_TO_START = 600.0  # a large ensemble on a slow disk
ATTEMPTS = 2


class WorkerStartError(RuntimeError):
    """The worker could not load the model; the message says why."""


class WorkerEndedError(Exception):
    """The worker has ended in the middle of something, such as loading the model."""


class WorkerProcess:
    """One worker process, which is started again whenever it has ended. Not for several threads at once.

    Args:
        build: makes the predictor, in the worker.
        seconds: longest prediction.

    Raises:
        WorkerStartError: if the model cannot be loaded.
    """

    def __init__(self, build: BuildPredictor, seconds: float) -> None:
        self.build = build
        self.seconds = seconds
        self.description: dict[str, Any] = {}
        self._closed = False
        self._process: BaseProcess
        self._connection: Connection
        try:
            self._start()
        except WorkerEndedError as error:
            raise WorkerStartError("The worker ended while it loaded the model; see above.") from error

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether it runs; a worker that has ended runs again after the next request, or after `revive`."""
        return self._process.is_alive()

    def revive(self) -> None:
        """Starts a worker if the last one has ended.

        Raises:
            WorkerStartError: if the model can no longer be loaded.
            WorkerEndedError: if the new one has ended as well.
        """
        # `is_alive` of a dead worker may still be true for a moment where another thread asks at the same time
        if self._connection.closed or not self.is_alive():
            self.stop()
            self._start()

    def predict(self, images: Path, folder: Path) -> Path:
        """Predicts a case; a worker that ends meanwhile is replaced, and the case predicted once more.

        Args:
            images: folder of the images.
            folder: for the result, one file per attempt, so that nothing is left over from a killed worker.

        Returns:
            The zip file with the result.

        Raises:
            Refusal: if the worker refuses the images, failed, ended twice, or took too long.
        """
        for attempt in range(ATTEMPTS):
            results = folder / f"attempt_{attempt}.zip"
            if self._closed:
                raise Refusal(503, "The server is shutting down.")
            try:
                self.revive()
                self._connection.send((images, results))
                kind, content = self._receive(self.seconds)
            except TimeoutError as error:
                self.stop()
                logger.warning("The worker took longer than %g seconds and is replaced.", self.seconds)
                raise Refusal(504, f"The prediction took longer than the limit of {self.seconds:g} s.") from error
            except (WorkerEndedError, ConnectionError):
                self.stop()
                logger.warning("The worker has ended while it had work (exit code %s).", self._process.exitcode)
            except WorkerStartError as error:
                logger.error("The worker cannot be started again: %s", error)
                raise Refusal(500, "The server can no longer load its model. Its log says why.") from error
            else:
                return _result(kind, content, results)
        raise Refusal(
            500, f"The worker ended {ATTEMPTS} times while it predicted this case; it may need too much memory."
        )

    def stop(self) -> None:
        """Ends the worker at once."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def close(self) -> None:
        """Ends the worker for good, also in the middle of a prediction in another thread."""
        self._closed = True
        self._process.kill()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share the server's sockets and locks
        connection, other_end = context.Pipe()
        process = context.Process(target=run_worker, args=(self.build, other_end), daemon=True)
        try:
            process.start()
        except ConnectionError as error:  # it ended before it had read what to run
            raise WorkerEndedError from error
        finally:
            other_end.close()  # else the worker's end would not be noticed
        self._process, self._connection = process, connection
        try:
            kind, content = self._receive(SECONDS_TO_START)
        except TimeoutError as error:
            self.stop()
            raise WorkerStartError(f"The model was not loaded within {SECONDS_TO_START:g} s.") from error
        if kind != "ready":
            self.stop()
            raise WorkerStartError(content)
        self.description = content

    def _receive(self, seconds: float) -> Message:
        """What the worker says; raises WorkerEndedError, or TimeoutError."""
        if not self._connection.poll(seconds):
            raise TimeoutError
        try:
            message: Message = self._connection.recv()
        except (EOFError, OSError) as error:  # OSError: in the middle of a message
            raise WorkerEndedError from error
        return message


def _result(kind: str, content: Any, results: Path) -> Path:
    if kind == "refused":
        raise Refusal(*content)
    if kind == "failed":
        raise Refusal(500, content)
    return results
