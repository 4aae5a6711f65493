"""Runs a target of fuzz_targets.py with the random bytes of atheris, which follows what code they reach.

    python tests/fuzz/fuzz.py TARGET [-max_total_time=60] [more flags of libFuzzer] [FOLDER of inputs to start from]
    python tests/fuzz/fuzz.py -max_total_time=60 [more flags]    # one target after the other

It ends at the first fault, with the input in a file crash-...; `python tests/fuzz/fuzz.py TARGET crash-...` repeats
it. Needs `pip install atheris`, which has wheels for Linux.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["nnunet_ext"], enable_loader_override=False):
    from fuzz_targets import TARGETS, Target

MOST_BYTES = 4096
SHARE_OF_RANDOM_BYTES = 0.2  # where a target has mutations of its own


def mutation(target: Target) -> Callable[[bytes, int, int], bytes]:
    """What atheris calls for the next input: the target's own mutations, and now and then random bytes."""

    def mutate(data: bytes, most_bytes: int, seed: int) -> bytes:
        random = Random(seed)
        if target.mutate is None or random.random() < SHARE_OF_RANDOM_BYTES:
            return atheris.Mutate(data, most_bytes)
        changed = target.mutate(data, random)
        return changed if len(changed) <= most_bytes else atheris.Mutate(data, most_bytes)

    return mutate


def main() -> None:
    """Fuzzes until the time is over or something is found."""
    if not sys.argv[1:] or sys.argv[1] not in TARGETS:
        for each in TARGETS:
            print(f"\n{each}", flush=True)
            if subprocess.run([sys.executable, __file__, each, *sys.argv[1:]]).returncode:
                sys.exit(f"{each} failed; the input is in this folder.")
        return
    name, *flags = sys.argv[1:]
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as work:
        seeds, folder = Path(work) / "seeds", Path(work) / "files"
        seeds.mkdir()
        folder.mkdir()
        for number, content in enumerate(target.seeds()):
            (seeds / str(number)).write_bytes(content)
        atheris.Setup(
            [sys.argv[0], f"-max_len={MOST_BYTES}", *flags, str(seeds)],
            lambda data: target.run(data, folder),
            custom_mutator=mutation(target),
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
