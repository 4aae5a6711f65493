"""How the C library handles freed memory, which affects how fast a CPU predicts."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

# from malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_MMAP_MAX = -4
M_ARENA_MAX = -8
LARGEST_INT = 2**31 - 1
MMAP_MAX_DEFAULT = 65536
LARGEST_MMAP_THRESHOLD = 1 << 25  # glibc refuses more


def keep_freed_memory() -> bool:
    """Makes this process keep the memory of freed tensors for the next ones, until it ends.

    glibc gets each large block from the system and returns it when it is freed. A network frees and allocates the
    same blocks with every layer, and each time the system has to clear all of their pages; that costs more than
    batches gain. Only Linux with glibc has these settings.

    Returns:
        Whether they were set; False on other systems, where nothing happens.
    """
    mallopt = _function_of_glibc("mallopt")
    if mallopt is None:
        return False
    # One arena for all threads: arenas of single threads return memory whatever the threshold is.
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, LARGEST_INT) and mallopt(M_ARENA_MAX, 1))


def return_large_blocks() -> bool:
    """Takes `keep_freed_memory` back for blocks of 32 MiB and more, which are returned to the system when freed.

    A process with a limit needs the memory of one large volume for the next one of another size.

    Returns:
        Whether it was set; False on systems without glibc.
    """
    mallopt = _function_of_glibc("mallopt")
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, MMAP_MAX_DEFAULT) and mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD))


def return_freed_memory() -> bool:
    """Returns all freed memory that this process keeps to the system, once; later blocks are kept again.

    Returns:
        Whether something was returned; False on systems without glibc.
    """
    malloc_trim = _function_of_glibc("malloc_trim")
    return malloc_trim is not None and bool(malloc_trim(0))


def _function_of_glibc(name: str) -> Callable[..., int] | None:
    """A function of glibc's allocator; None on other systems."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):  # another C library, such as musl
        return None
