"""Which device a command takes when nobody names one, and what it says about it."""

from __future__ import annotations

import pytest
import torch

from nnunet_ext.machine.devices import fastest_device, usable_device, words_for


@pytest.fixture
def machine(monkeypatch):
    """`machine(cuda, mps)`: what torch finds."""

    def set_up(cuda: bool, mps: bool) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
        monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)

    return set_up


@pytest.mark.parametrize(
    ("cuda", "mps", "fastest"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_fastest_that_is_there(machine, cuda, mps, fastest):
    machine(cuda, mps)
    assert fastest_device().type == fastest


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(machine, name):
    machine(cuda=False, mps=False)
    with pytest.raises(ValueError, match=f"-device {name}"):
        usable_device(torch.device(name))
    assert usable_device(torch.device("cpu")).type == "cpu"


def test_the_cpu_is_explained_only_where_there_is_nothing_else(machine):
    machine(cuda=False, mps=False)
    assert words_for(torch.device("cpu")) == "on the CPU: PyTorch finds no GPU"
    machine(cuda=False, mps=True)
    assert words_for(torch.device("cpu")) == "on the CPU"
