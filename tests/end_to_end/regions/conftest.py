"""A dataset with nested regions and an ignore label, for all configurations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tiny_datasets import Dataset

from nnunet_ext.phantom import write_regions_dataset


@pytest.fixture(scope="session")
def region_dataset(variables: dict[str, str], plan_here: Callable[..., Dataset]) -> Dataset:
    """Nested regions and an ignore label, on one grid as CarveMix needs, for 2d, 3d and the cascade."""
    raw = write_regions_dataset(variables["nnUNet_raw"], dataset_id=991, training_cases=6, common_grid=True)
    return plan_here(raw, "2d", "3d_fullres", "3d_lowres")
