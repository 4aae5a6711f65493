"""Trainers whose networks or losses differ, in 3D with regions and an ignore label."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize(
    "trainer",
    [
        "nnUNetTrainerDSD_1epochs_1iters",
        "nnUNetTrainerStreamingUNetD3P_1epochs_1iters",
        "nnUNetTrainerBoundary_HausdorffDT_HausdorffErosion_HausdorffConv_SkeletonRecall_Euler_ACE_2epochs_1iters",
        "nnUNetTrainerCarveMix_AdvChain_ClDice_RegionFocal_2epochs_1iters",
    ],
)
def test_3d_with_regions_and_an_ignore_label_trains_and_validates(trainer, region_dataset, train_here):
    trained = train_here(region_dataset, "3d_fullres", 0, trainer, validate=True)
    assert np.isfinite(trained.logger.get_value("train_losses", step=-1))
    assert (region_dataset.model(trainer, "3d_fullres") / "fold_0" / "validation" / "summary.json").is_file()
