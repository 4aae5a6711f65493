"""Trainers of other plans and datasets than the fixtures', for parts that read the levels of a U-Net."""

from copy import deepcopy

import pytest


def like(trainer, *, labels=None, **arguments):
    """A trainer of the same kind for a dataset or plans that differ in something."""
    given = {**deepcopy(trainer.my_init_kwargs), **arguments}
    given["plans"]["continue_training"] = False  # the constructor takes it out
    if labels:
        given["dataset_json"]["labels"] = labels
    return type(trainer)(**given)


def begun(trainer):
    trainer.initialize()
    trainer.inference_allowed_mirroring_axes = (0, 1)  # nnU-Net sets it with its data loaders
    trainer.network.train()
    return trainer


def deeper(trainer):
    """The same with one level more than the plans of the fixture, not initialized."""
    plans = deepcopy(trainer.my_init_kwargs["plans"])
    architecture = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    architecture.update(
        n_stages=4,
        features_per_stage=[4, 8, 8, 8],
        kernel_sizes=[[3, 3]] * 4,
        strides=[[1, 1], [2, 2], [2, 1], [1, 2]],
        n_conv_per_stage=[1] * 4,
        n_conv_per_stage_decoder=[1] * 3,
    )
    return like(trainer, plans=plans)


def three_targets(batch):
    """nnU-Net's targets of the four levels above: full resolution, half, and half of that along the first axis."""
    finest, half = batch["target"]
    return {**batch, "target": [finest, half, half[..., ::2, :]]}


@pytest.fixture(scope="session")
def dataset_like():
    """`dataset_like(trainer, labels=..., plans=...)`: the same trainer for other labels or plans."""
    return like


@pytest.fixture(scope="session")
def initialized():
    """`initialized(trainer)`: ready for a step."""
    return begun


@pytest.fixture(scope="session")
def of_four_levels():
    """`of_four_levels(trainer)`: the same trainer for plans of four levels, not initialized."""
    return deeper


@pytest.fixture(scope="session")
def with_three_targets():
    """`with_three_targets(batch)`: the batch for four levels."""
    return three_targets
