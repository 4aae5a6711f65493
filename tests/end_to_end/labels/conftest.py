"""A dataset with plain labels, for 2d."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tiny_datasets import Dataset

from nnunet_ext.phantom import write_regions_dataset


@pytest.fixture(scope="session")
def plain_dataset(variables: dict[str, str], plan_here: Callable[..., Dataset]) -> Dataset:
    """Two labels, two channels, oblique axes; for 2d."""
    raw = write_regions_dataset(
        variables["nnUNet_raw"], dataset_id=992, name="PhantomPlain", training_cases=6, regions=False, ignore=False
    )
    return plan_here(raw, "2d")
