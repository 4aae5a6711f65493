"""Why a request gets no result, as an HTTP status and a message for whoever sent it."""

from __future__ import annotations


class Refusal(Exception):
    """A request that gets no result.

    Attributes:
        status: of HTTP: 400 for a request that cannot be understood, 401 without the token, 408 for an upload that
            takes too long, 413 for one that is too large, 422 for an image that cannot be predicted, 500 for a worker
            that failed, 503 for a full queue, 504 for a prediction that takes too long.
        message: what is wrong and what to do; names no other request and no path of the server.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
