"""Writes phantoms with lesions for a study, 6 cases to train on and 20 to validate with, and plans them.

    python benchmarks/phantom_lesions.py WORK

nnU-Net's environment variables then are WORK/nnUNet_raw, WORK/nnUNet_preprocessed and WORK/nnUNet_results.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from held_out_coverage import run
from small_plans import shrink

from nnunet_ext.phantom.dataset import write_regions_dataset

TRAINING, VALIDATION = 6, 20
PLANS = "nnUNetPlansStudy"
NETWORK = {"features": [8, 16, 32], "patch_size": [32, 32, 32], "batch_size": 2}


def main() -> None:
    """Writes, plans, splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work.resolve()
    os.environ |= {name: str(work / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    raw = write_regions_dataset(
        work / "nnUNet_raw", dataset_id=993, name="PhantomLesions", training_cases=TRAINING + VALIDATION,
        test_cases=0, regions=False, ignore=False, common_grid=True,
    )  # fmt: skip
    run("nnUNetv2_plan_and_preprocess", "-d", 993, "-c", "3d_fullres", "-np", 1, "-npfp", 1, "--no_pbar",
        nnUNet_n_proc_DA="1")  # planning divides by it  # fmt: skip
    preprocessed = work / "nnUNet_preprocessed" / raw.name
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text(encoding="utf-8"))
    shrink(plans["configurations"]["3d_fullres"], NETWORK)
    (preprocessed / f"{PLANS}.json").write_text(json.dumps(plans | {"plans_name": PLANS}), encoding="utf-8")
    cases = [f"tumour_{number:03d}" for number in range(TRAINING + VALIDATION)]
    splits = [{"train": cases[:TRAINING], "val": cases[TRAINING:]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")


if __name__ == "__main__":
    main()
