"""Writes phantoms with lesions for a study, 6 cases to train on and 20 to validate with, and plans them.

    python benchmarks/phantom_lesions.py WORK

nnU-Net's environment variables then are WORK/nnUNet_raw, WORK/nnUNet_preprocessed and WORK/nnUNet_results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from small_plans import write_small
from workspace import plan, use_workspace

from nnunet_ext.phantom.dataset import write_regions_dataset

TRAINING, VALIDATION = 6, 20
PLANS = "nnUNetPlansStudy"
NETWORK = {"features": [8, 16, 32], "patch_size": [32, 32, 32], "batch_size": 2}


def main() -> None:
    """Writes, plans, splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    raw_folder, preprocessed_folder, _ = use_workspace(parser.parse_args().work)
    raw = write_regions_dataset(
        raw_folder, dataset_id=993, name="PhantomLesions", training_cases=TRAINING + VALIDATION,
        test_cases=0, regions=False, ignore=False, common_grid=True,
    )  # fmt: skip
    plan(993, "3d_fullres")
    preprocessed = preprocessed_folder / raw.name
    write_small(preprocessed / "nnUNetPlans.json", PLANS, {"3d_fullres": NETWORK})
    cases = [f"tumour_{number:03d}" for number in range(TRAINING + VALIDATION)]
    splits = [{"train": cases[:TRAINING], "val": cases[TRAINING:]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")


if __name__ == "__main__":
    main()
