"""A Ray cluster on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest


@pytest.fixture(scope="module")
def local_ray() -> Callable[..., AbstractContextManager[None]]:
    """`with local_ray(**variables)`: a cluster of two CPU cores, whose processes see these variables."""

    @contextmanager
    def started(**variables: str) -> Iterator[None]:
        ray = pytest.importorskip("ray", reason="needs the extra ray")
        # a started cluster reports to nobody, leaves no token in the home folder, and is no slower than the tests
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (quiet | variables).items():
                patch.setenv(name, value)
            ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
            try:
                yield
            finally:
                ray.shutdown()

    return started
