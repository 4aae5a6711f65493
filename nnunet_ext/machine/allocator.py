"""How the C library handles freed memory, which affects how fast a CPU predicts."""

from __future__ import annotations

import ctypes
import sys

# from malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
M_ARENA_MAX = -8
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Makes this process keep the memory of freed tensors for the next ones, until it ends.

    glibc gets each large block from the system and returns it when it is freed. A network frees and allocates the
    same blocks with every layer, and each time the system has to clear all of their pages; that costs more than
    batches gain. Only Linux with glibc has these settings.

    Returns:
        Whether they were set; False on other systems, where nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    # One arena for all threads: arenas of single threads return memory whatever the threshold is.
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, LARGEST_INT) and mallopt(M_ARENA_MAX, 1))
