"""Datasets whose plans, in place of those that nnU-Net made, one core trains in seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLANS = "nnUNetPlansTiny"


@dataclass(frozen=True)
class Dataset:
    """A raw dataset that was planned and preprocessed.

    Attributes:
        number: its id, as commands take it.
        raw: its folder in nnUNet_raw.
        results: its folder in nnUNet_results.
    """

    number: str
    raw: Path
    results: Path
    plans: str = PLANS

    @property
    def images(self) -> Path:
        """The test images."""
        return self.raw / "imagesTs"

    def model(self, trainer: str, configuration: str) -> Path:
        """The folder that training writes."""
        return self.results / f"{trainer}__{self.plans}__{configuration}"


def make_plans_tiny(preprocessed: Path, *, patch_size_2d: tuple[int, int], coarser_3d: float) -> None:
    """Rewrites the planned networks and adds a cascade, which the planner finds needless for images this small.

    `coarser_3d` multiplies the spacing of 3d_fullres and what inherits it, which must not be preprocessed yet.
    """
    path = preprocessed / f"{PLANS}.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    configurations = plans["configurations"]
    shrink(configurations["2d"], features=(16, 32, 32), patch_size=patch_size_2d, batch_size=4)
    fullres = configurations["3d_fullres"]
    shrink(fullres, features=(8, 8, 8), patch_size=(24, 24, 24), batch_size=2)
    fullres["spacing"] = [coarser_3d * spacing_mm for spacing_mm in fullres["spacing"]]
    configurations["3d_lowres"] = {
        "inherits_from": "3d_fullres",
        "data_identifier": f"{PLANS}_3d_lowres",
        "spacing": [1.6 * spacing_mm for spacing_mm in fullres["spacing"]],
        "patch_size": [16, 16, 16],
        "next_stage": "3d_cascade_fullres",
    }
    configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    path.write_text(json.dumps(plans), encoding="utf-8")


def shrink(
    configuration: dict[str, Any], *, features: Sequence[int], patch_size: Sequence[int], batch_size: int
) -> None:
    """Three stages, the fewest that deep supervision works with."""
    dimensions = len(patch_size)
    configuration |= {"patch_size": list(patch_size), "batch_size": batch_size}
    configuration["architecture"]["arch_kwargs"] |= {
        "n_stages": 3,
        "features_per_stage": list(features),
        "kernel_sizes": [[3] * dimensions] * 3,
        "strides": [[1] * dimensions, [2] * dimensions, [2] * dimensions],
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [1, 1],
    }


def write_splits(raw: Path, preprocessed: Path, folds: int = 2) -> None:
    """Folds that validate one case each, because the final validation predicts all of them."""
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    splits = [{"train": [case for case in cases if case != held], "val": [held]} for held in cases[:folds]]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
