"""The process that holds the networks: predicts the folder of one request after the other."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from nnunet_ext.error_text import in_words
from nnunet_ext.serving.refusal import Refusal

logger = logging.getLogger(__name__)

CASE = "case"  # the name of every case: the sender's own names stay with the sender
EXPECTED_ERRORS = (OSError, ValueError, RuntimeError, MemoryError)  # others end the worker, which is replaced


class CasePredictor(Protocol):
    """What the worker runs.

    Attributes:
        description: what a request needs to know: channels, file ending, labels, maps.
    """

    description: dict[str, Any]

    def __call__(self, images: Path, results: Path) -> None:
        """Predicts the case in the folder `images` and writes `results`, a zip file.

        Raises:
            Refusal: if the images cannot be predicted.
        """


BuildPredictor = Callable[[], CasePredictor]
Message = tuple[str, Any]  # ("ready", description), ("done", None), ("refused", (status, text)), ("failed", text)


def run_worker(build: BuildPredictor, requests: Connection) -> None:
    """Builds the predictor, then predicts what is asked for until the other end of the connection closes.

    Args:
        build: makes the predictor; a function of a module, since it is sent to this process by its name.
        requests: receives pairs of folder and zip file; each gets one `Message`.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: worker: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the server, which then ends this process
    try:
        predictor = build()
    except EXPECTED_ERRORS as error:
        requests.send(("failed", str(error) or in_words(error)))
        return
    requests.send(("ready", predictor.description))
    try:
        while True:
            images, results = requests.recv()
            requests.send(answer(predictor, images, results))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the server has ended


def answer(predictor: CasePredictor, images: Path, results: Path) -> Message:
    """Predicts one request."""
    try:
        predictor(images, results)
    except Refusal as refusal:
        return "refused", (refusal.status, refusal.message)
    except EXPECTED_ERRORS as error:
        logger.error("A request could not be predicted.", exc_info=error)
        return "failed", "The prediction failed on the server, whose log says why."
    return "done", None
