"""Models that preprocess alike share the image of a case; the results are those of each on its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.inference.accumulation.case_frame import all_to
from nnunet_ext.inference.engine import EnsembleEngine, open_models
from nnunet_ext.inference.preparation import prepare_case, preprocessing_of
from nnunet_ext.models.model import Model
from nnunet_ext.options import AdaptOptions, EnsembleOptions, OutputOptions
from nnunet_ext.prediction_folder.cases import Case, find_cases

OPTIONS = EnsembleOptions(device="cpu", allow_tqdm=False)
EDITS: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {  # of the plans, and of their configuration
    "spacing": lambda plans, configuration: configuration.update(spacing=[1.0, 2.0]),
    "normalisation": lambda plans, configuration: configuration.update(normalization_schemes=["CTNormalization"]),
    "mask": lambda plans, configuration: configuration.update(use_mask_for_norm=[True]),
    "intensities": lambda plans, configuration: plans.update(
        foreground_intensity_properties_per_channel={"0": {"mean": 1.0}}
    ),
    "order": lambda plans, configuration: configuration["resampling_fn_data_kwargs"].update(order=1),
    "axes": lambda plans, configuration: plans.update(transpose_forward=[0, 2, 1], transpose_backward=[0, 2, 1]),
    "preprocessor": lambda plans, configuration: configuration.update(preprocessor_name="Another"),
    "previous stage": lambda plans, configuration: configuration.update(previous_stage="3d_lowres"),
    "its own setting": lambda plans, configuration: configuration.update(of_a_custom_preprocessor=1),
}
NO_EDITS: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
    "name": lambda plans, configuration: plans.update(plans_name="nnUNetResEncUNetMPlans"),
    "network": lambda plans, configuration: configuration["architecture"]["arch_kwargs"].update(n_stages=4),
    "patch": lambda plans, configuration: configuration.update(patch_size=[32, 32], batch_size=3),
    "output": lambda plans, configuration: configuration["resampling_fn_probabilities_kwargs"].update(order=0),
}


class CountingModel(Model):
    """A model that notes when it preprocesses."""

    counted: list[str]

    def preprocess(self, case: Case) -> tuple[torch.Tensor, dict]:
        self.counted.append(self.folder.name)
        return super().preprocess(case)


def counting(folders: Sequence[Path]) -> list[Model]:
    CountingModel.counted = []
    return [CountingModel(**vars(model)) for model in open_models(folders, OPTIONS)]


@pytest.fixture
def case(make_image: Callable[..., Path], tmp_path: Path) -> Case:
    return find_cases(make_image(tmp_path / "images"), ".nii.gz")[0]


@pytest.fixture
def members(make_model_folder: Callable[..., Path]) -> list[Path]:
    """Five model folders with the same plans."""
    return [make_model_folder(f"nnUNetTrainer_member{k}__nnUNetPlans__2d", seeds=(k,)) for k in range(1, 6)]


def test_folders_with_the_same_plans_share_a_case(members, make_model_folder, case):
    """A folder with another spacing has its own image, one with other patches its own tiles of the same image."""
    coarse, wide = make_model_folder("coarse", spacing_mm=(2.0, 2.0)), make_model_folder("wide", patch_size=(16, 32))
    prepared = prepare_case(case, counting([*members, coarse, wide]), OPTIONS)
    assert CountingModel.counted == [members[0].name, "coarse"]
    assert all(one is prepared[0] for one in prepared[:5])
    assert prepared[5].tiled.image.shape != prepared[0].tiled.image.shape
    assert prepared[6].properties is prepared[0].properties
    assert prepared[6].tiled.window.shape == (16, 32)
    torch.testing.assert_close(prepared[6].tiled.without_padding, prepared[0].tiled.without_padding, rtol=0, atol=0)


def test_what_is_shared_is_moved_once(members, make_model_folder, case):
    prepared = prepare_case(case, counting([*members, make_model_folder("wide", patch_size=(16, 32))]), OPTIONS)
    moved = all_to(prepared, torch.device("meta"))
    assert all(one is moved[0] for one in moved[:5])
    assert [one.tiled.image.device.type for one in moved] == ["meta"] * 6
    assert moved[5] is not moved[0]
    assert prepared[0].tiled.image.device.type == "cpu"


@pytest.mark.parametrize("edit", [*EDITS, *NO_EDITS])
def test_what_makes_preprocessing_another(members, edit):
    (model,) = open_models(members[:1], OPTIONS)
    stored = copy.deepcopy(model.plans.plans)
    (EDITS | NO_EDITS)[edit](stored, stored["configurations"]["2d"])
    plans = PlansManager(stored)
    other = replace(model, plans=plans, configuration=plans.get_configuration("2d"))
    assert (preprocessing_of(other) != preprocessing_of(model)) == (edit in EDITS)


@pytest.mark.parametrize(
    "fields",
    [{}, {"tta": "full"}, {"early_exit": "label"}, {"adapt": AdaptOptions()}],
    ids=["plain", "full", "early exit", "adapted"],
)
def test_predictions_are_those_of_images_that_nobody_shares(members, case, fields):
    """To the byte; and what is shared has not changed afterwards."""
    engine = EnsembleEngine.from_model_folders(members[:3], OPTIONS, **fields)
    apart = [prepared for model in engine.models for prepared in prepare_case(case, [model], OPTIONS)]
    shared = engine.prepare(case)
    assert (len(set(apart)), len(set(shared))) == (3, 1)
    output = OutputOptions(maps=("entropy", "confidence"), save_probabilities=True)
    expected, found = (engine.predict_case("case", prepared, output) for prepared in (apart, shared))
    np.testing.assert_array_equal(found.segmentation, expected.segmentation)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    np.testing.assert_array_equal(found.maps["entropy"], expected.maps["entropy"])
    assert str(found.row) == str(expected.row)
    assert torch.equal(shared[0].tiled.image, engine.prepare(case)[0].tiled.image)
