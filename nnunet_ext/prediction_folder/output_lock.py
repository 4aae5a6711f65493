"""Only one run at a time may write to an output folder; the parts of one prediction share it."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = ".nnunet_ext-"  # hidden, with an ending that no image has: no tool mistakes it for a result
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # errors of file systems without locks

logger = logging.getLogger(__name__)


class OutputInUseError(RuntimeError):
    """Another run is writing to the output folder; the message names it."""


class OutputLock:
    """Holds an output folder for one run, or for one part of a prediction in several parts.

    The lock belongs to the operating system and ends with the process, however that ends: a killed run blocks nobody.
    A run in `n` parts and one in another number of parts exclude each other, because they divide the cases
    differently.

    Args:
        folder: the output folder; created if missing.
        part_id: which part of the cases this run predicts, from 0.
        num_parts: how many runs share the folder.

    Raises:
        OutputInUseError: if another run holds the folder.
        NotADirectoryError: if the path is a file.
        PermissionError: if the folder is not writable.
    """

    def __init__(self, folder: Path, *, part_id: int = 0, num_parts: int = 1) -> None:
        self.folder = folder
        self.name = f"{PREFIX}part{part_id}of{num_parts}"
        self._make_folder()
        own = self._path(self.name)
        self._lock = FileLock(own)
        if not self._acquired(self._lock):
            raise OutputInUseError(self._in_use_message(self.name))
        try:
            self._refuse_other_divisions(f"of{num_parts}.lock")
            if self._lock.is_locked:
                self._holder_file(self.name).write_text(json.dumps(_this_run()), encoding="utf-8")
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Releases the folder and removes the lock files; a second call does nothing."""
        if self._lock.is_locked:
            self._holder_file(self.name).unlink(missing_ok=True)
            _remove_and_release(self._lock)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            taken = next(path for path in (self.folder, *self.folder.parents) if path.exists())
            raise NotADirectoryError(
                f"The output must be a folder; {taken} is a file. Choose another folder with -o."
            ) from error
        except OSError as error:
            self._refuse_unwritable(error)

    def _acquired(self, lock: FileLock) -> bool:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                logger.warning(
                    "The file system of %s has no locks: make sure that no other run writes to it.", self.folder
                )
                return True
            self._refuse_unwritable(error)
        return True

    def _refuse_unwritable(self, error: OSError) -> None:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise PermissionError(
                f"The output folder must be writable; {self.folder} is not ({error.strerror}). "
                f"Choose another folder with -o, or ask its owner."
            ) from error
        raise error

    def _refuse_other_divisions(self, own_ending: str) -> None:
        """Refuses if a run that divides the cases differently is active; removes the lock files of killed runs."""
        for path in self.folder.glob(f"{PREFIX}part*of*.lock"):
            if path.name.endswith(own_ending):
                continue
            other = FileLock(path)
            if not self._acquired(other):
                raise OutputInUseError(self._in_use_message(path.stem))
            if other.is_locked:
                self._holder_file(path.stem).unlink(missing_ok=True)
                _remove_and_release(other)

    def _in_use_message(self, name: str) -> str:
        part, _, parts = name.removeprefix(f"{PREFIX}part").partition("of")
        return (
            f"Only one run at a time may write to an output folder; {self.folder} is in use by {self._holder(name)}, "
            f"part {part} of {parts}. Wait until it has ended or stop it, or choose another folder with -o. Several "
            f"runs can share a folder with the same -num_parts and different -part_id."
        )

    def _holder(self, name: str) -> str:
        """Which process holds a lock, as far as it is recorded."""
        try:
            holder = json.loads(self._holder_file(name).read_text(encoding="utf-8"))
            return f"process {holder['pid']} on {holder['host']}, started {holder['started']}"
        except (OSError, ValueError, LookupError, TypeError):
            return "a process that has not recorded its id yet"

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.lock"

    def _holder_file(self, name: str) -> Path:
        # not the lock file itself: on Windows no other process can read a locked file
        return self.folder / f"{name}.json"


def _this_run() -> dict[str, object]:
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started}


def _remove_and_release(lock: FileLock) -> None:
    """Removes the file while the lock is held, so that no other run's lock is removed; on Windows afterwards."""
    path = Path(lock.lock_file)
    with suppress(OSError):
        path.unlink(missing_ok=True)
    lock.release()
    if os.name == "nt":  # an open file cannot be removed there, not even one that the next run has opened meanwhile
        with suppress(OSError):
            path.unlink(missing_ok=True)
