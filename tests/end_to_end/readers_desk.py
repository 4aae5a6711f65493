"""What the pages take for granted: a dataset 123 with trained models, and the folder where their reader stands."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tiny_datasets import PLANS, Dataset, write_splits

from nnunet_ext.phantom import write_regions_dataset

TEST_CASES = ["patient006_frame01", "patient007_frame01"]


def make_heart(
    variables: Mapping[str, str], plan_here: Callable[..., Dataset], train_here: Callable[..., Any]
) -> Dataset:
    """Dataset 123, planned and preprocessed, with two folds of a stock model of each configuration."""
    raw = write_regions_dataset(
        variables["nnUNet_raw"], dataset_id=123, name="Heart", training_cases=6, regions=False, ignore=False
    )
    for file in raw.rglob("tumour_*"):  # named as on the pages, where (patient\d+)_ is the patient
        file.rename(file.with_name(re.sub(r"tumour_(\d+)", r"patient\1_frame01", file.name)))
    plan_here(raw, "2d", "3d_fullres")
    preprocessed = Path(variables["nnUNet_preprocessed"]) / raw.name
    write_splits(raw, preprocessed)
    plans = json.loads((preprocessed / f"{PLANS}.json").read_text(encoding="utf-8")) | {"plans_name": "nnUNetPlans"}
    for configuration in ("2d", "3d_fullres"):  # narrower still: nobody asks what these networks find
        sizes = plans["configurations"][configuration]["architecture"]["arch_kwargs"]
        sizes |= {"features_per_stage": [4, 4, 4], "n_conv_per_stage": [1, 1, 1]}
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans), encoding="utf-8")
    dataset = Dataset("123", raw, Path(variables["nnUNet_results"]) / raw.name, plans="nnUNetPlans")
    for configuration in ("2d", "3d_fullres"):
        for fold in (0, 1):
            train_here(dataset, configuration, fold, "nnUNetTrainer", prepare=shorten, validate=True)
    for part in ("images", "labels"):  # no fold was trained on these, so they may stand for a new place
        shutil.copytree(raw / f"{part}Ts", raw / f"{part}Tr", dirs_exist_ok=True)
    return dataset


def shorten(trainer: Any) -> None:
    """One iteration, for a trainer whose name cannot say so."""
    trainer.num_epochs = trainer.num_iterations_per_epoch = trainer.num_val_iterations_per_epoch = 1


def set_desk(folder: Path, heart: Dataset, variables: Mapping[str, str], earlier: Path) -> None:
    """Lays out what the pages name, in an empty folder.

    Args:
        folder: where the reader stands.
        heart: what `make_heart` made.
        variables: nnU-Net's.
        earlier: a folder with `results` and `evaluation` of the test images.
    """
    links = {
        "images": heart.images,
        "labels": heart.raw / "labelsTs",
        "scans": heart.raw / "imagesTr",
        "labelsTr": heart.raw / "labelsTr",
        "MODEL": heart.model("nnUNetTrainer", "3d_fullres"),
        "nnUNet_preprocessed": Path(variables["nnUNet_preprocessed"]),
        "nnUNet_results": Path(variables["nnUNet_results"]),
        "home/images": heart.images,
        "home/nnunet/raw": Path(variables["nnUNet_raw"]),
        "home/nnunet/preprocessed": Path(variables["nnUNet_preprocessed"]),
        "home/nnunet/results": Path(variables["nnUNet_results"]),
        **{f"results_{which}": earlier / "results" for which in ("old", "new", "pp", "scratch")},
        **{f"eval/{which}_{run}": earlier / "evaluation" for which in ("old", "new") for run in (1, 2)},
    }
    for name, target in links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)
    for environment in (".venv", "home/nnunet/.venv"):
        (folder / environment / "bin").mkdir(parents=True)
        (folder / environment / "bin" / "activate").touch()
    (folder / "cases_known.csv").write_text("case,centre\n" + "".join(f"{case},A\n" for case in TEST_CASES))
    splits = Path(variables["nnUNet_preprocessed"]) / heart.raw.name / "splits_final.json"
    fold, *rest = json.loads(splits.read_text(encoding="utf-8"))
    (folder / "new_place.json").write_text(json.dumps([fold | {"val": TEST_CASES}, *rest]), encoding="utf-8")
