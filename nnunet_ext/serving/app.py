"""The HTTP interface: checks who asks, stores the upload, asks the worker, sends the result.

Every request has a folder of its own with a random name, which is gone when its answer is sent. No answer holds a
path, or anything of another request.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from nnunet_ext import __version__
from nnunet_ext.error_text import in_words
from nnunet_ext.options.serving import ServerLimits, is_loopback
from nnunet_ext.serving.places import Places
from nnunet_ext.serving.refusal import Refusal
from nnunet_ext.serving.upload import store_upload
from nnunet_ext.serving.worker_process import WorkerEndedError, WorkerProcess, WorkerStartError

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 1.0


class Server:
    """Answers requests with one worker.

    Args:
        worker: the worker, started.
        limits: what a request may take.
        token: what a request must show; None lets in whoever connects by a name of this computer itself.
        folder: an existing folder for what is uploaded, which nobody else can read.
    """

    def __init__(self, worker: WorkerProcess, limits: ServerLimits, token: str | None, folder: Path) -> None:
        self.worker = worker
        self.limits = limits
        self.token = token
        self.folder = folder
        self.places = Places(limits.waiting + 1)
        self.turn = anyio.Lock()  # first come, first served

    def app(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route("/health", self.health),
                Route("/model", self.model),
                Route("/predict", PredictEndpoint(self), methods=["POST"]),
            ],
            exception_handlers={Refusal: refused},
            lifespan=self._lifespan,
        )

    async def health(self, _: Request) -> Response:
        """Whether the worker is there; needs no token and says nothing about requests."""
        alive = self.worker.is_alive()
        return JSONResponse({"status": "ready" if alive else "starting", "version": __version__})

    async def model(self, request: Request) -> Response:
        """What to send and what comes back."""
        self.require_allowed(request)
        limits = {"upload_bytes": self.limits.upload_bytes, "voxels": self.limits.voxels}
        return JSONResponse(self.worker.description | {"limits": limits | {"seconds": self.limits.seconds}})

    def require_allowed(self, request: Request) -> None:
        """Lets in requests with the token; without one, those for a name of this computer.

        The second keeps out web pages that a browser on this computer shows, whose own name was made to lead here.

        Raises:
            Refusal: with status 401 or 403.
        """
        if self.token is None:
            if not is_loopback(request.url.hostname or ""):
                raise Refusal(403, "The server answers to localhost and 127.0.0.1 only; found another name.")
            return
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(shown.encode(), self.token.encode()):
            raise Refusal(401, "The server needs its token; found none or another. Send Authorization: Bearer TOKEN.")

    @contextmanager
    def request_folder(self) -> Iterator[Path]:
        """A folder for one request."""
        folder = self.folder / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def predicted(self, request: Request, folder: Path) -> Path:
        """Stores the upload and has it predicted; returns the zip file.

        Raises:
            Refusal: if there is no result.
        """
        images = folder / "images"
        images.mkdir()
        if int(request.headers.get("content-length", "0")) > self.limits.upload_bytes:
            raise Refusal(413, f"An upload may have {self.limits.upload_bytes} bytes (--max-upload); found more.")
        try:
            with anyio.fail_after(self.limits.seconds):
                await store_upload(
                    request.headers.get("content-type", ""),
                    request.stream(),
                    images,
                    ending=self.worker.description["file_ending"],
                    most_bytes=self.limits.upload_bytes,
                )
        except TimeoutError as error:
            raise Refusal(408, f"The upload took longer than the limit of {self.limits.seconds:g} s.") from error
        async with self.turn:
            return await anyio.to_thread.run_sync(self.worker.predict, images, folder)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_worker)
            yield
            tasks.cancel_scope.cancel()
            self.worker.close()

    async def _keep_worker(self) -> None:
        """Replaces a worker that ends while there is nothing to do."""
        while True:
            await anyio.sleep(SECONDS_BETWEEN_LOOKS)
            async with self.turn:
                if not self.worker.is_alive():
                    try:
                        await anyio.to_thread.run_sync(self.worker.revive)
                    except (WorkerStartError, WorkerEndedError) as error:
                        logger.error("The worker could not be started again: %s", in_words(error))


class PredictEndpoint:
    """`POST /predict`: everything that a request takes is given back when its answer is sent."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, as an ASGI application.

        Raises:
            Refusal: if there is no result.
        """
        request = Request(scope, receive)
        server = self.server
        server.require_allowed(request)
        with server.places.one(), server.request_folder() as folder:
            try:
                archive = await server.predicted(request, folder)
            except ClientDisconnect:
                return
            with anyio.move_on_after(server.limits.seconds):
                await FileResponse(archive, media_type="application/zip", filename="result.zip")(scope, receive, send)


def refused(_: Request, refusal: Exception) -> Response:
    """The answer to a request that gets no result."""
    status, message = (refusal.status, refusal.message) if isinstance(refusal, Refusal) else (500, "")
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {"Retry-After": "30"} if status == 503 else None
    return JSONResponse({"error": message}, status, headers)
