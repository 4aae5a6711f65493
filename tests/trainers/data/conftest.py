"""Trainers that load stacks of slices from cases on disk."""

from __future__ import annotations

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from stack_cases import numbered_case, plans_for_stacks, save_case


@pytest.fixture
def load_stacks(make_trainer, monkeypatch, tmp_path):
    """`load_stacks(name, cases)`: an initialized trainer and its loaders of training and validation."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    np.random.seed(0)
    torch.manual_seed(0)

    def load(
        name,
        cases=None,
        *,
        median_slices=4,
        batch_size=8,
        configuration="2d",
        regions=False,
        oversample=0.33,
        loaders=True,
    ):
        cases = cases or [numbered_case(case, 10) for case in (1, 2, 3)]
        folder = tmp_path / "preprocessed" / "Dataset001_Tiny"
        (folder / "nnUNetPlans_2d" / "case.b2nd").unlink(missing_ok=True)  # the fixture's empty one
        names = [f"case{number}" for number in range(1, len(cases) + 1)]
        for case, arrays in zip(names, cases, strict=True):
            if not (folder / "nnUNetPlans_2d" / f"{case}.b2nd").exists():
                save_case(folder / "nnUNetPlans_2d", case, *arrays)
        (folder / "splits_final.json").write_text(json.dumps([{"train": names, "val": names}]))
        channels = len(cases[0][0])
        shape = make_trainer(name, initialize=False, regions=regions)
        given = deepcopy(shape.my_init_kwargs)
        given["plans"] = plans_for_stacks(
            given["plans"], median_slices=median_slices, batch_size=batch_size, channels=channels
        )
        given["dataset_json"]["channel_names"] = {str(channel): "CT" for channel in range(channels)}
        given["configuration"] = configuration
        trainer = type(shape)(**given)
        trainer.oversample_foreground_percent = oversample
        trainer.initialize()
        return (trainer, *trainer.get_dataloaders()) if loaders else trainer

    return load
