"""Settings of the C library; in a process of its own, because they last until it ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nnunet_ext.machine import allocator


def printed_after_keeping(code: str) -> list[int]:
    """The numbers that code prints in a process of its own that keeps freed memory; skips the test without glibc."""
    begin = "from nnunet_ext.machine.allocator import keep_freed_memory\nprint(keep_freed_memory())\n"
    done = subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True, check=True)
    was_set, *numbers = done.stdout.split()
    if was_set == "False":
        pytest.skip("the C library is not glibc")
    return [int(number) for number in numbers]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="these settings exist on Linux only")
def test_a_freed_block_comes_back_without_new_pages():
    """64 MiB taken and freed 20 times: with pages of 4 KiB, 16,384 faults the first time and next to none after."""
    code = (
        "import resource, numpy as np\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    np.ones(1 << 26, np.uint8)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "faults()\n"
        "print(sum(faults() for _ in range(20)))"
    )
    (faults,) = printed_after_keeping(code)
    assert faults < 1000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="freed memory is kept on Linux only")
def test_freed_memory_that_is_kept_can_be_given_back():
    """64 MiB beneath a block that stays: freed, they remain in the process until it gives them back."""
    code = (
        "import numpy as np\n"
        "from nnunet_ext.machine.allocator import return_freed_memory\n"
        "from nnunet_ext.machine.available_memory import resident_bytes\n"
        "large, stays = np.ones(1 << 26, np.uint8), np.ones(1 << 20, np.uint8)\n"
        "held = resident_bytes()\n"
        "del large\n"
        "print(held - resident_bytes())\n"
        "return_freed_memory()\n"
        "print(held - resident_bytes())"
    )
    kept, given_back = printed_after_keeping(code)
    assert kept < 1 << 20
    assert given_back > 60 << 20


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(allocator.sys, "platform", "win32")
    assert allocator.keep_freed_memory() is False
    assert allocator.return_freed_memory() is False
