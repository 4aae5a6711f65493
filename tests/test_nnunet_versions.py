"""Which versions of nnU-Net are known, and what is said about others."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nnunet_ext.nnunet_versions import installed_version, network_of_trainer, remark_on


@pytest.mark.parametrize("version", ["2.8.0", "2.8.1", "2.8.12", "2.8.2.dev0"])
def test_of_a_known_version_nothing_is_said(version):
    assert remark_on(version) == ""


@pytest.mark.parametrize("version", ["2.9.0", "2.10.0rc1", "3.0"])
def test_a_newer_version_is_called_unknown_and_not_refused(version):
    assert remark_on(version).startswith("this is newer than 2.8, the last version that nnunet_ext was tested with")


@pytest.mark.parametrize("version", ["2.7.0", "2.6.2", "1.7.1"])
def test_an_older_version_must_be_updated(version):
    assert remark_on(version) == 'pip install "nnunetv2>=2.8.0"'


def test_the_version_of_this_run_is_a_version():
    assert installed_version()[0].isdigit()


CONFIGURATION = SimpleNamespace(
    network_arch_class_name="Network",
    network_arch_init_kwargs={"features": 4},
    network_arch_init_kwargs_req_import=("conv_op",),
)


def test_a_trainer_gets_the_arguments_that_its_version_of_nnunet_had():
    class Old:
        @staticmethod
        def build_network_architecture(name, kwargs, imports, inputs, outputs, enable_deep_supervision):
            return (name, kwargs, imports, inputs, outputs, enable_deep_supervision)

    class New:
        @classmethod
        def build_network_architecture(cls, plans_manager, configuration_manager, inputs, outputs, supervision):
            return (plans_manager, configuration_manager, inputs, outputs, supervision)

    assert network_of_trainer(Old, "plans", CONFIGURATION, 1, 3) == (
        "Network",
        {"features": 4},
        ("conv_op",),
        1,
        3,
        False,
    )
    assert network_of_trainer(New, "plans", CONFIGURATION, 1, 3) == ("plans", CONFIGURATION, 1, 3, False)
