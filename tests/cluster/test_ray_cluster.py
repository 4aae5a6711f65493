"""How a cluster is divided among workers, and which clusters can be named. No cluster runs here."""

from __future__ import annotations

import pytest

from nnunet_ext.cli import build_parser, main
from nnunet_ext.cli.cluster_flags import chosen_cluster
from nnunet_ext.cluster.hand_out import ClusterError
from nnunet_ext.cluster.ray_cluster import Shares, shares_of
from nnunet_ext.options import ClusterOptions

PREDICT = ["predict", "-i", "images", "-o", "out", "-m", "model"]
GPU_MACHINE = {"CPU": 32.0, "GPU": 4.0}
CPU_MACHINE = {"CPU": 10.0}


@pytest.mark.parametrize(
    ("machines", "device", "cores", "expected"),
    [
        ([GPU_MACHINE], None, None, Shares("cuda", workers=4, cores=8)),
        ([GPU_MACHINE, CPU_MACHINE], None, None, Shares("cuda", workers=4, cores=8)),  # CPUs are left alone
        ([GPU_MACHINE, {"CPU": 4.0, "GPU": 2.0}], None, None, Shares("cuda", workers=6, cores=2)),
        ([GPU_MACHINE], "cuda", 16, Shares("cuda", workers=2, cores=16)),  # 32 cores are enough for two
        ([{"CPU": 1.0, "GPU": 1.0}], None, None, Shares("cuda", workers=1, cores=1)),
        ([GPU_MACHINE], "cpu", None, Shares("cpu", workers=8, cores=4)),
        ([CPU_MACHINE, CPU_MACHINE], None, None, Shares("cpu", workers=4, cores=4)),  # two cores are left on each
        ([{"CPU": 2.0}], None, None, Shares("cpu", workers=1, cores=2)),
        ([CPU_MACHINE], None, 5, Shares("cpu", workers=2, cores=5)),
    ],
)
def test_a_worker_gets_a_gpu_or_a_share_of_the_cores(machines, device, cores, expected):
    assert shares_of(machines, device, cores) == expected


@pytest.mark.parametrize(
    ("machines", "device", "cores", "said"),
    [
        ([CPU_MACHINE], "cuda", None, "and a GPU of one machine"),
        ([CPU_MACHINE, CPU_MACHINE], None, 12, "needs 12 CPU cores of one machine"),
        ([], None, None, "Add a machine"),
        ([CPU_MACHINE], "mps", None, "found -device mps"),
    ],
)
def test_a_cluster_without_room_for_a_worker_is_refused(machines, device, cores, said):
    with pytest.raises(ClusterError, match=said):
        shares_of(machines, device, cores)


def test_the_shares_in_words():
    assert Shares("cuda", workers=4, cores=8).words == "at most 4 workers, each with a GPU and 8 cores"
    assert Shares("cpu", workers=1, cores=1).words == "at most 1 worker, each with 1 core"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], None),
        (["--cluster", "ray"], ClusterOptions()),
        (["--cluster", "ray:10.0.0.1:6379"], ClusterOptions("10.0.0.1:6379")),
        (["--cluster", "ray:auto", "--cluster-cpus", "8"], ClusterOptions("auto", cores=8)),
    ],
)
def test_the_flag_names_a_cluster(flags, expected):
    assert chosen_cluster(build_parser().parse_args([*PREDICT, *flags])) == expected


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--cluster", "dask"], "--cluster must be ray or ray:ADDRESS; found 'dask'"),
        (["--cluster", "ray:"], "found 'ray:'"),
        (["--cluster", "ray", "--cluster-cpus", "0"], "--cluster-cpus must be at least 1; found 0"),
        (["--cluster-cpus", "2"], "found no --cluster"),
    ],
)
def test_what_is_no_cluster_is_refused(flags, said, capsys):
    assert main([*PREDICT, *flags]) == 1
    assert said in capsys.readouterr().err
