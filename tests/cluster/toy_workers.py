"""Workers of a Ray cluster that need no network: what goes wrong in them is in the name of the case."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Outcome:
    """What `HandOut` passes on; importing `RunOutcome` would take each process 5 seconds."""

    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ToyCase:
    """A case without files."""

    name: str


class ToyWorker:
    """Predicts by writing down each attempt in a folder; its models cannot be loaded if the folder says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self) -> tuple[int, str]:
        if (self.folder / "no models").exists():
            raise ValueError("there is no such model")
        if (self.folder / "no memory").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid(), "here"

    def predict(self, case: ToyCase) -> Outcome:
        attempt = self.folder / f"{case.name}.{len([*self.folder.glob(f'{case.name}.*')])}"
        attempt.touch()
        if case.name.startswith("deadly") or (case.name.startswith("unlucky") and attempt.suffix == ".0"):
            time.sleep(0.1)  # so that another case is there to be lost with it
            os.kill(os.getpid(), signal.SIGKILL)
        if case.name.startswith("slow"):
            time.sleep(0.3)
        if case.name.startswith("bad"):
            return Outcome({case.name: "it is bad"})
        return Outcome()
