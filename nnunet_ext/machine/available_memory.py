"""How much main memory this process can use; on Linux only."""

from __future__ import annotations

from pathlib import Path

KIBIBYTE = 1024
# Files of a control group: its limit, its use, and the statistic for cached files, which can be dropped.
VERSION_2 = ("memory.max", "memory.current", "inactive_file")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that this process could use in total: free memory, free swap space, and what it already uses.

    What it uses counts as available, since freed memory that it keeps cannot be told from memory in use.
    So this is an upper bound; what comes on top of the memory in use must fit into `free_memory_bytes`.

    Args:
        root: folder of `proc` and `sys`.

    Returns:
        None if the system does not report it, as on all systems but Linux.
    """
    free, own = free_memory_bytes(root), resident_bytes(root)
    return None if free is None or not own else free + own


def free_memory_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that this process could take beyond what it holds: free memory and free swap space.

    The limit of a container or of a batch system counts where it leaves less. Freed memory that the process keeps is
    not free, but it is after `return_freed_memory`.

    Args:
        root: folder of `proc` and `sys`.

    Returns:
        None if the system does not report it, as on all systems but Linux.
    """
    machine = _table(root / "proc" / "meminfo")
    if "MemAvailable" not in machine:
        return None
    free = (machine["MemAvailable"] + machine.get("SwapFree", 0)) * KIBIBYTE
    return min([free, *_free_in_groups(root)])


def resident_bytes(root: Path = Path("/")) -> int:
    """Bytes of this process that are in main memory; 0 if the system does not report it.

    Args:
        root: folder of `proc`.
    """
    return _table(root / "proc" / "self" / "status").get("VmRSS", 0) * KIBIBYTE


def _free_in_groups(root: Path) -> list[int]:
    """Bytes that the control groups of this process still allow; empty if none sets a limit."""
    free = []
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys" / "fs" / "cgroup" / controllers
        group = top / name.strip("/")
        for folder in (group, *group.parents):  # a limit holds for all groups below
            free += _free_in_group(folder, *(VERSION_1 if controllers else VERSION_2))
            if folder == top:
                break
    return free


def _free_in_group(folder: Path, limit_file: str, use_file: str, droppable: str) -> list[int]:
    limit, use = _text(folder / limit_file).strip(), _text(folder / use_file).strip()
    if not limit.isdecimal() or not use.isdecimal():  # "max" means no limit
        return []
    return [max(0, int(limit) - int(use) + _table(folder / "memory.stat").get(droppable, 0))]


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number; other lines are skipped, and a missing file has none."""
    rows = (line.replace(":", " ").split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
