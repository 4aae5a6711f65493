"""Predictors without a network, which a worker process can import: they act on the bytes of the upload."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

from nnunet_ext.serving.refusal import Refusal

DESCRIPTION = {"file_ending": ".nii.gz", "channels": ["CT"]}


class Reverses:
    """The result is the upload, reversed; takes as long as asked. The words in an upload make it do other things."""

    description = DESCRIPTION

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self, images: Path, results: Path) -> None:
        content = b"".join(file.read_bytes() for file in sorted(images.iterdir()))
        time.sleep(60 if content == b"hang" else self.seconds)
        if content == b"refuse":
            raise Refusal(422, "not this one")
        if content == b"fail":
            raise OSError(f"no space left in {images}")
        if content == b"die":
            os.kill(os.getpid(), signal.SIGKILL)
        if content == b"die once" and not (images / "seen").exists():
            (images / "seen").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if content == b"names":
            content = " ".join(sorted(path.name for path in images.iterdir())).encode()[::-1]
        results.write_bytes(content[::-1])


def cannot_be_built() -> Reverses:
    raise ValueError("no such model")


reverses = Reverses
slow = partial(Reverses, 0.2)
