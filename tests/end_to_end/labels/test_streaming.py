"""Mixtures of classifiers through the stock programs: stacks of slices, prediction with both programs."""

from __future__ import annotations

import pytest

from nnunet_ext.files.checkpoints import load_checkpoint
from nnunet_ext.prediction_folder.case_table import read_cases

TRAINER = "nnUNetTrainerStreaming_DiceFocal_3epochs_10iters"


@pytest.fixture(scope="module")
def model(plain_dataset, train_here):
    train_here(plain_dataset, "2d", 0, TRAINER, validate=True)
    return plain_dataset.model(TRAINER, "2d")


def test_the_final_validation_of_stock_ran_slice_by_slice(model):
    assert (model / "fold_0" / "validation" / "summary.json").is_file()


def test_both_programs_predict_with_a_mixture(
    model, plain_dataset, predict_here, predict_with_stock, tmp_path, labels_in, agreement
):
    watched = ["--maps", "entropy", "memory", "--save_members"]
    ours = predict_here(plain_dataset.images, tmp_path / "ours", "-m", model, *watched)
    stock = predict_with_stock(model, plain_dataset.images, tmp_path / "stock")
    assert sorted(labels_in(ours)) == sorted(labels_in(stock)) == ["tumour_006", "tumour_007"]
    member = "fold_0__checkpoint_final"
    assert {path.name for path in (ours / "members").iterdir()} == {
        member,
        f"{member}+classifier0",
        f"{member}+classifier1",
    }
    assert len(list((ours / "maps").glob("memory_*_[01]/tumour_006.nii.gz"))) == 4
    # the memory of the volume and that of a slice: alike, not the same
    assert agreement(ours, stock) > 0.9


def test_one_classifier_predicts_under_stock_as_a_plain_model(
    model, plain_dataset, predict_with_stock, run_here, tmp_path, labels_in
):
    assert run_here("export", "-m", model, "-o", tmp_path / "plain", "--classifier", 1) == 0
    [copy] = (tmp_path / "plain" / "Dataset992_PhantomPlain").iterdir()
    assert load_checkpoint(copy / "fold_0" / "checkpoint_final.pth")["trainer_name"] == "nnUNetTrainer"
    assert len(labels_in(predict_with_stock(copy, plain_dataset.images, tmp_path / "out"))) == 2


def test_draws_of_a_network_with_dropout_are_members(plain_dataset, train_here, predict_here, tmp_path):
    trainer = "nnUNetTrainerMCDropout_Bagging_1epochs_4iters"
    train_here(plain_dataset, "2d", 0, trainer)
    folder = plain_dataset.model(trainer, "2d")
    assert (folder / "fold_0" / "bootstrap.json").is_file()
    output = predict_here(plain_dataset.images, tmp_path / "out", "-m", folder, "--members", "mc-dropout:3")
    rows = read_cases(output / "cases.csv")
    assert [row["members"] for row in rows] == ["3", "3"]
    assert all(float(row["mutual_information"]) > 0 for row in rows)  # the draws differ
