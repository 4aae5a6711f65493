"""The memory that a process could have, read from files as Linux writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_ext.machine.available_memory import available_memory_bytes, free_memory_bytes

MEMINFO = (
    "MemTotal:   65536000 kB\nMemFree:  100 kB\nMemAvailable: 1000 kB\nSwapFree: {swap} kB\nHugePages_Total: 0\n"
)
STATUS = "Name:\tpython\nVmPeak:\t  900 kB\nVmRSS:\t     50 kB\n"


@pytest.fixture
def linux(tmp_path: Path):
    """`linux(files)`: a file tree of a machine with 1000 KiB available; this process holds 50 KiB besides."""

    def make(files: dict[str, str] | None = None, *, swap: int = 0) -> Path:
        known = {"proc/meminfo": MEMINFO.format(swap=swap), "proc/self/status": STATUS}
        for name, content in (known | (files or {})).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        return tmp_path

    return make


def test_what_is_free_and_what_the_process_holds_already(linux) -> None:
    assert available_memory_bytes(linux()) == (1000 + 50) * 1024


def test_what_the_process_holds_is_not_free(linux) -> None:
    assert free_memory_bytes(linux()) == 1000 * 1024


def test_swap_space_counts(linux) -> None:
    assert available_memory_bytes(linux(swap=200)) == (1000 + 200 + 50) * 1024


def test_the_limit_of_a_container_counts_without_cached_files(linux) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "500000\n",
        "sys/fs/cgroup/memory.current": "400000\n",
        "sys/fs/cgroup/memory.stat": "anon 350000\ninactive_file 30000\n",
    }
    assert available_memory_bytes(linux(files)) == 500000 - 400000 + 30000 + 50 * 1024


def test_the_limit_of_a_group_above_holds_too(linux) -> None:
    # as a batch system sets it: on the job, while the process is in a group of its step
    files = {
        "proc/self/cgroup": "0::/slurm/job_7/step_0\n",
        "sys/fs/cgroup/slurm/job_7/memory.max": "300000\n",
        "sys/fs/cgroup/slurm/job_7/memory.current": "100000\n",
        "sys/fs/cgroup/slurm/job_7/step_0/memory.max": "max\n",
        "sys/fs/cgroup/slurm/job_7/step_0/memory.current": "90000\n",
    }
    assert available_memory_bytes(linux(files)) == 200000 + 50 * 1024


def test_the_older_version_of_control_groups(linux) -> None:
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/job\n4:memory:/job\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "700000\n",
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "100000\n",
        "sys/fs/cgroup/memory/job/memory.stat": "total_inactive_file 1000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",  # no limit
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "100000\n",
    }
    assert available_memory_bytes(linux(files)) == 601000 + 50 * 1024


def test_a_group_that_holds_more_than_its_limit_leaves_nothing(linux) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "100\n",
        "sys/fs/cgroup/memory.current": "400\n",
    }
    assert available_memory_bytes(linux(files)) == 50 * 1024


def test_another_system_does_not_say(tmp_path: Path) -> None:
    assert available_memory_bytes(tmp_path) is None


def test_this_machine_has_memory_or_does_not_say() -> None:
    available = available_memory_bytes()
    assert available is None or available > 0
