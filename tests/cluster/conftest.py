"""A Ray cluster on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from nnunet_ext.cluster.ray_cluster import FOR_A_STARTED_CLUSTER


@pytest.fixture(scope="module")
def local_ray() -> Callable[..., AbstractContextManager[None]]:
    """`with local_ray(**variables)`: a cluster of two CPU cores, whose processes see these variables."""

    @contextmanager
    def started(**variables: str) -> Iterator[None]:
        ray = pytest.importorskip("ray", reason="needs the extra ray")
        no_token = {"RAY_AUTH_MODE": "disabled"}  # in the home folder
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (FOR_A_STARTED_CLUSTER | no_token | variables).items():
                patch.setenv(name, value)
            ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
            try:
                yield
            finally:
                ray.shutdown()

    return started
