"""Loss terms see the distance of slices where a 2D training has stacks."""

from __future__ import annotations

import numpy as np
import pytest
from stack_cases import SLICE_SPACING_MM

from nnunet_ext.trainers.part import Kind
from nnunet_ext.trainers.parts import PARTS

TERMS = [part.spelling for part in PARTS if part.kind is Kind.LOSS_TERM]


@pytest.mark.parametrize("term", TERMS)
def test_a_loaded_stack_trains_every_term(load_stacks, term):
    trainer, loader, _ = load_stacks(f"nnUNetTrainerStreaming_{term}")
    trainer.current_epoch = trainer.num_epochs - 1  # where ramps have ended
    trainer.on_train_epoch_start()
    assert np.isfinite(trainer.train_step(next(loader))["loss"])


def test_a_stack_has_the_median_distance_of_slices(load_stacks):
    """Of the plans, 8 mm, before the planned pixels; a 3D patch has the planned spacing."""
    planar = load_stacks("nnUNetTrainerStreaming", loaders=False)
    pixels = tuple(planar.configuration_manager.spacing)[-2:]
    assert planar.patch_spacing_mm == (SLICE_SPACING_MM, *pixels)
    volumetric = load_stacks("nnUNetTrainerStreaming", configuration="3d_fullres", loaders=False)
    assert volumetric.patch_spacing_mm == tuple(volumetric.configuration_manager.spacing)
