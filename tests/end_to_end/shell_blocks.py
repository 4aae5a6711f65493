"""The shell commands of a page, run by bash, with each program of ours and of nnU-Net run in this process.

Bash does what bash does: variables, loops, patterns, pipes. It finds a stand-in for each program, which tells the
test what it was called with, waits, and hands back output and exit status. A process of its own would take 5 seconds
each.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("basename", "bash", "cat", "cp", "cut", "dirname", "grep", "head", "ls", "mkdir", "mv", "rm", "sed", "sort",
         "tail", "tee", "tr", "wc")  # fmt: skip
STAND_IN = """#!{python} -SE
import json, os, socket, sys
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
script = sys.stdin.read() if words[1:] == ["-"] else ""
call = {{"words": words, "script": script, "folder": os.getcwd(), "variables": dict(os.environ)}}
with socket.socket(socket.AF_UNIX) as test:
    test.connect({address!r})
    test.sendall(json.dumps(call).encode())
    test.shutdown(socket.SHUT_WR)
    answer = json.loads(b"".join(iter(lambda: test.recv(65536), b"")))
sys.stdout.write(answer["output"])
sys.exit(answer["status"])
"""


@dataclass(frozen=True)
class Call:
    """A program as bash calls it.

    Attributes:
        words: its name and its arguments.
        script: of `python -`, what stands on its input.
        folder: where.
        variables: of its environment.
    """

    words: tuple[str, ...]
    script: str
    folder: Path
    variables: Mapping[str, str]

    @property
    def line(self) -> str:
        """For a message."""
        return " ".join(self.words)


RunProgram = Callable[[Call], tuple[int, str]]  # to exit status and output


def code_blocks(page: str) -> Iterator[tuple[str, str]]:
    """Language and text of each block between lines of three backticks."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


def blocks_to_run(page: str, programs: Collection[str]) -> list[str]:
    """What a page has its reader run, each as commands for bash.

    A block counts if it calls one of the programs; where it shows prompts, only what stands behind one. Python counts
    unless it is a class, which belongs into a file.
    """
    blocks = []
    for language, text in code_blocks(page):
        prompted = "".join(f"{line}\n" for line in re.findall(r"^\$ (.*)$", text, flags=re.MULTILINE))
        commands = prompted or text
        first_words = {line.split()[0] for line in commands.splitlines() if line.strip()}
        if language in ("", "bash", "sh") and first_words & set(programs):
            blocks.append(commands)
        elif language == "python" and "\nclass " not in text:
            blocks.append(f"python - <<'END'\n{text}END\n")
    return blocks


def make_stand_ins(folder: Path, programs: Collection[str], address: Path) -> None:
    """A folder for PATH: the tools of a shell, and a stand-in for each program, that calls at a socket."""
    folder.mkdir(parents=True)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, f"{tool} is not on this machine"
        (folder / tool).symlink_to(found)
    for program in programs:
        (folder / program).write_text(STAND_IN.format(python=sys.executable, address=str(address)), encoding="utf-8")
        (folder / program).chmod(0o755)


def run_in_bash(
    block: str, folder: Path, variables: Mapping[str, str], programs: Collection[str], run_program: RunProgram
) -> tuple[int, str]:
    """Runs a block in a folder; returns bash's exit status and what bash itself wrote to stderr.

    Args:
        block: commands.
        folder: where.
        variables: all that the environment has, but PATH.
        programs: that stand-ins are made for.
        run_program: what runs in their place.
    """
    with tempfile.TemporaryDirectory(prefix="page") as own, socket.socket(socket.AF_UNIX) as listener:
        address = Path(own) / "calls"  # the path of a socket must be short
        make_stand_ins(Path(own) / "bin", programs, address)
        listener.bind(str(address))
        listener.listen()
        listener.settimeout(0.02)
        bash = subprocess.Popen(
            [str(Path(own) / "bin" / "bash"), "-c", block],
            cwd=folder,
            env={**variables, "PATH": str(Path(own) / "bin")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            while bash.poll() is None:
                answer_one(listener, run_program)
        finally:
            bash.kill()
        _, errors = bash.communicate()
        return bash.returncode, errors


def answer_one(listener: socket.socket, run_program: RunProgram) -> None:
    """Runs what a stand-in was called with, if one calls now."""
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        return
    with connection, connection.makefile("rw", encoding="utf-8") as stand_in:
        call = json.loads(stand_in.read())
        call = Call(tuple(call["words"]), call["script"], Path(call["folder"]), call["variables"])
        print("$", call.line)  # above the trace of a test that fails
        status, output = run_program(call)
        stand_in.write(json.dumps({"status": status, "output": output}))
