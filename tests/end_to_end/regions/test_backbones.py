"""Trainers with one of the literature's networks: stock training and stock prediction in 2D and 3D."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("trainer", "configuration"),
    [
        ("nnUNetTrainerDSD_VNet_1epochs_1iters", "2d"),
        ("nnUNetTrainerLCOVNet_1epochs_1iters", "3d_fullres"),
    ],
)
def test_stock_prediction_equals_ours_and_the_export_refuses(
    region_dataset,
    train_here,
    predict_with_stock,
    predict_here,
    run_here,
    agreement,
    tmp_path,
    trainer,
    configuration,
):
    train_here(region_dataset, configuration, 0, trainer)
    model = region_dataset.model(trainer, configuration)
    stock = predict_with_stock(model, region_dataset.images, tmp_path / "stock", fp32_sums=True)
    ours = predict_here(region_dataset.images, tmp_path / "ours", "-m", model, "--average", "logits")
    assert agreement(stock, ours) > 0.999
    assert run_here("export", "-m", model, "-o", tmp_path / "plain") == 1
    assert not (tmp_path / "plain").exists()
