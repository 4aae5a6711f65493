"""Who may come in, and who is next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nnunet_ext.serving.refusal import Refusal


class Places:
    """A fixed number of places for requests; for one event loop.

    Args:
        count: of requests that may be here at the same time.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Holds a place.

        Raises:
            Refusal: with status 503 if there is none.
        """
        if self.taken >= self.count:
            raise Refusal(503, f"The server is busy with {self.count} requests, the most it takes. Try again later.")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
