"""Self-distillation through the stock programs: training, prediction with and without this package."""

from __future__ import annotations

import pytest

from nnunet_ext.files.checkpoints import load_checkpoint

TRAINER = "nnUNetTrainerDSD_Cyclical2_4epochs_20iters"


@pytest.fixture(scope="module")
def model(plain_dataset, train_here):
    train_here(plain_dataset, "2d", 0, TRAINER, validate=True)
    return plain_dataset.model(TRAINER, "2d")


@pytest.fixture(scope="module")
def plain_copy(model, run_command, tmp_path_factory):
    """What `nnunet_ext export` makes of the model, in a process of its own."""
    results = tmp_path_factory.mktemp("plain")
    done = run_command("nnunet_ext", "export", "-m", model, "-o", results)
    copy = results / "Dataset992_PhantomPlain" / "nnUNetTrainer__nnUNetPlansTiny__2d"
    assert done.stdout.splitlines()[-1] == str(copy)
    return copy


def test_stock_prediction_finds_the_trainer_and_predicts_without_heads(
    model, plain_dataset, predict_with_stock, tmp_path
):
    output = predict_with_stock(model, plain_dataset.images, tmp_path / "out")
    assert len(list(output.glob("*.nii.gz"))) == 2


def test_stock_prediction_without_this_package_gives_the_same_from_an_exported_copy(
    model, plain_copy, plain_dataset, predict_with_stock, tmp_path, agreement, labels_in
):
    with_package = predict_with_stock(model, plain_dataset.images, tmp_path / "with")
    without = predict_with_stock(plain_copy, plain_dataset.images, tmp_path / "without", trainers=False)
    assert agreement(with_package, without) == 1
    assert any(labels.any() for labels in labels_in(with_package).values())  # not just background twice


def test_the_copy_holds_what_prediction_needs_and_nothing_else(plain_copy):
    assert set(load_checkpoint(plain_copy / "fold_0" / "checkpoint_final.pth")) == {
        *("network_weights", "init_args", "trainer_name", "inference_allowed_mirroring_axes"),
    }


def test_samples_of_a_distilled_training_are_members(model, plain_dataset, predict_here, tmp_path, labels_in):
    output = predict_here(
        *(plain_dataset.images, tmp_path / "out", "-m", model, "--members", "samples", "--maps", "mutual_information")
    )
    assert sorted(labels_in(output)) == ["tumour_006", "tumour_007"]
    assert (output / "maps" / "mutual_information" / "tumour_006.nii.gz").is_file()
