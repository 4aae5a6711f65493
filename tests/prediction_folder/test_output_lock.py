"""One run at a time in an output folder, and nothing that a killed run leaves blocks the next."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from nnunet_ext.prediction_folder.output_lock import OutputInUseError, OutputLock

HOLDS_A_FOLDER = """
import sys
from pathlib import Path
from nnunet_ext.prediction_folder.output_lock import OutputLock
lock = OutputLock(Path(sys.argv[1]), part_id=int(sys.argv[2]), num_parts=int(sys.argv[3]))
print("holds it", flush=True)
sys.stdin.read()
lock.release()
"""


@pytest.fixture
def another_run() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`another_run(folder, part_id, num_parts)`: a process that holds the folder until its input ends."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path, part_id: int = 0, num_parts: int = 1) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDS_A_FOLDER, str(folder), str(part_id), str(num_parts)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "holds it\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_in_use_is_refused_with_who_holds_it_and_what_to_do(tmp_path: Path, another_run) -> None:
    process = another_run(tmp_path)
    with pytest.raises(OutputInUseError, match="one run at a time may write") as refusal:
        OutputLock(tmp_path)
    message = str(refusal.value)
    assert f"{tmp_path} is in use by process {process.pid} on {socket.gethostname()}, started 20" in message
    assert "part 0 of 1. Wait until it has ended or stop it, or choose another folder with -o." in message


def test_a_killed_run_blocks_nobody(tmp_path: Path, another_run) -> None:
    process = another_run(tmp_path)
    process.kill()
    process.wait()
    assert names_in(tmp_path) == [".nnunet_ext-part0of1.json", ".nnunet_ext-part0of1.lock"]  # what it left
    OutputLock(tmp_path).release()
    assert names_in(tmp_path) == []


def test_the_folder_is_free_and_empty_again_after_a_run(tmp_path: Path, another_run) -> None:
    process = another_run(tmp_path / "out")
    process.communicate()  # its input ends
    assert names_in(tmp_path / "out") == []
    OutputLock(tmp_path / "out").release()


def test_a_second_run_of_the_same_process_is_refused_too(tmp_path: Path) -> None:
    lock = OutputLock(tmp_path)
    with pytest.raises(OutputInUseError, match=f"process {os.getpid()} "):
        OutputLock(tmp_path)
    lock.release()
    lock.release()  # a second time does nothing
    OutputLock(tmp_path).release()


def test_parts_share_a_folder_but_not_a_part(tmp_path: Path, another_run) -> None:
    another_run(tmp_path, 0, 2)
    second = OutputLock(tmp_path, part_id=1, num_parts=2)
    with pytest.raises(OutputInUseError, match="part 0 of 2"):
        OutputLock(tmp_path, part_id=0, num_parts=2)
    second.release()
    assert names_in(tmp_path) == [".nnunet_ext-part0of2.json", ".nnunet_ext-part0of2.lock"]  # the other's


@pytest.mark.parametrize(("running", "starting"), [((0, 2), (0, 1)), ((0, 1), (1, 2)), ((2, 11), (0, 1))])
def test_runs_that_divide_the_cases_in_another_way_exclude_each_other(
    tmp_path: Path, another_run, running, starting
) -> None:
    another_run(tmp_path, *running)
    with pytest.raises(OutputInUseError, match=f"part {running[0]} of {running[1]}"):
        OutputLock(tmp_path, part_id=starting[0], num_parts=starting[1])
    part, parts = running
    assert names_in(tmp_path) == [f".nnunet_ext-part{part}of{parts}.json", f".nnunet_ext-part{part}of{parts}.lock"]


def test_what_killed_parts_left_is_removed_by_a_run_alone(tmp_path: Path, another_run) -> None:
    for part in (0, 1):
        process = another_run(tmp_path, part, 2)
        process.kill()
        process.wait()
    OutputLock(tmp_path).release()
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"pid": '])
def test_a_holder_that_has_not_said_its_name_is_still_a_holder(tmp_path: Path, content: str) -> None:
    lock = OutputLock(tmp_path)
    (tmp_path / ".nnunet_ext-part0of1.json").write_text(content, encoding="utf-8")
    with pytest.raises(OutputInUseError, match="in use by a process that has not recorded its id yet, part 0 of 1"):
        OutputLock(tmp_path)
    lock.release()


def test_what_is_recorded_of_the_holder(tmp_path: Path) -> None:
    lock = OutputLock(tmp_path)
    holder = json.loads((tmp_path / ".nnunet_ext-part0of1.json").read_text(encoding="utf-8"))
    assert (holder["pid"], holder["host"]) == (os.getpid(), socket.gethostname())
    assert holder["started"].endswith("+00:00")
    lock.release()


def test_a_disk_too_full_for_the_holders_name_frees_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left on device"):
        OutputLock(tmp_path)
    monkeypatch.undo()
    assert names_in(tmp_path) == []
    OutputLock(tmp_path).release()


@pytest.mark.parametrize("inside", ["", "deeper/still"])
def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path, inside: str) -> None:
    (tmp_path / "out").write_text("results of last year", encoding="utf-8")
    with pytest.raises(NotADirectoryError, match="The output must be a folder") as refusal:
        OutputLock(tmp_path / "out" / inside)
    assert f"{tmp_path / 'out'} is a file. Choose another folder with -o." in str(refusal.value)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", refused)
    with pytest.raises(PermissionError, match=f"must be writable; .* is not .{os.strerror(number)}.*another folder"):
        OutputLock(tmp_path)


def test_a_file_system_without_locks_is_warned_about_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def without_locks(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", without_locks)
    OutputLock(tmp_path).release()
    assert "has no locks: make sure that no other run writes" in caplog.text
    assert names_in(tmp_path) == []
