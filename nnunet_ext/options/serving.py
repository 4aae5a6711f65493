"""Options of `serve`: which model is kept loaded, where it listens, and its limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nnunet_ext.options.models import ModelChoice
from nnunet_ext.options.prediction import EnsembleOptions, OutputOptions

SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class ServerLimits:
    """What a request may take.

    Attributes:
        upload_bytes: most bytes of an upload.
        voxels: most numbers in one image: as its header announces them, and resampled to the network's spacing.
        seconds: longest upload, and longest prediction. A worker that takes longer is replaced.
        waiting: requests that may wait for the one that is predicted; more are turned away.

    Raises:
        ValueError: if a limit is not positive.
    """

    upload_bytes: int = 1 << 30
    voxels: int = 300_000_000
    seconds: float = 600.0
    waiting: int = 4

    def __post_init__(self) -> None:
        for name, value in (("upload", self.upload_bytes), ("voxels", self.voxels), ("timeout", self.seconds)):
            if value <= 0:
                raise ValueError(f"The server's limits must be above 0; found {value} for {name}.")
        if self.waiting < 0:
            raise ValueError(f"The length of the queue must be 0 or more; found {self.waiting}.")


@dataclass(frozen=True)
class ServeOptions:
    """What `nnunet_ext serve` does.

    Attributes:
        model: which models make up the ensemble.
        ensemble: how its members are combined, and where it runs.
        output: which maps are sent.
        calibration: file written by `calibrate`; True takes `calibration.json` in the model folder; None applies no
            calibration.
        host: address to listen on.
        port: TCP port to listen on.
        token: what a request must show; None lets everybody in, on this computer only.
        limits: what a request may take.

    Raises:
        ValueError: if other computers could connect without a token, or the token is too short to be a secret.
    """

    model: ModelChoice
    ensemble: EnsembleOptions = field(default_factory=EnsembleOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    calibration: Path | Literal[True] | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    limits: ServerLimits = field(default_factory=ServerLimits)

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise ValueError(
                f"Beyond this computer the server needs a token; found the host {self.host} and none. Give "
                f"--token-file FILE, or leave out --host."
            )
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            raise ValueError(
                f"A token must have {SHORTEST_TOKEN} characters or more; found {len(self.token)}. Make one with "
                f"openssl rand -hex 32."
            )


def is_loopback(host: str) -> bool:
    """Whether a host is this computer itself: `localhost`, 127.0.0.0/8 or ::1."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name, which may be anywhere
        return False
