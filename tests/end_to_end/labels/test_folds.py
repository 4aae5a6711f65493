"""A stock cross-validation: plain nnUNetTrainer, no nnUNet_extTrainer, predicted with `nnunet_ext predict -m`."""

from __future__ import annotations

import json
import pickle
import shutil
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_ext.prediction_folder.case_table import read_cases
from nnunet_ext.teaching.record import TeacherError

CASES = ["tumour_006", "tumour_007"]
FOLDS = (0, 1)
QUIETLY = ("-np", 1, "--disable_progress_bar")


def shortened(trainer):
    """4 epochs of 30 iterations find the tumour; nnU-Net's 1000 of 250 would take a day here."""
    trainer.num_epochs = 4
    trainer.num_iterations_per_epoch = 30
    trainer.num_val_iterations_per_epoch = 2


@pytest.fixture(scope="module")
def stock_model(plain_dataset, train_here):
    for fold in FOLDS:
        train_here(plain_dataset, "2d", fold, "nnUNetTrainer", prepare=shortened)
    return plain_dataset.model("nnUNetTrainer", "2d")


@pytest.fixture(scope="module")
def stock_results(stock_model, plain_dataset, predict_with_stock, tmp_path_factory):
    return predict_with_stock(
        *(stock_model, plain_dataset.images, tmp_path_factory.mktemp("stock") / "out"),
        folds=FOLDS,
        save_probabilities=True,
    )


@pytest.fixture(scope="module")
def averaged_logits(stock_model, plain_dataset, predict_here, tmp_path_factory):
    """All folds by default."""
    return predict_here(
        *(plain_dataset.images, tmp_path_factory.mktemp("logits"), "-m", stock_model, "--average", "logits"),
        *("--save_probabilities", "--maps", "entropy", "mutual_information"),
    )


def test_averaged_logits_of_folds_are_stock_nnunet_with_fp32_sums_to_the_voxel(
    averaged_logits, stock_model, plain_dataset, predict_with_stock, tmp_path, agreement
):
    stock = predict_with_stock(stock_model, plain_dataset.images, tmp_path / "stock", folds=FOLDS, fp32_sums=True)
    assert agreement(averaged_logits, stock) == 1


def test_averaged_logits_of_folds_agree_with_stock_nnunet_as_it_is(averaged_logits, stock_results, agreement):
    assert agreement(averaged_logits, stock_results) >= 0.999


def test_the_model_has_learned_something(averaged_logits, plain_dataset, labels_in):
    found, truth = labels_in(averaged_logits), labels_in(plain_dataset.raw / "labelsTs")
    for case in CASES:
        tumour = (found[case] > 0, truth[case] > 0)
        assert 2 * np.sum(tumour[0] & tumour[1]) / np.sum(tumour) > 0.7


def test_saved_probabilities_have_the_layout_and_the_values_of_stock(averaged_logits, stock_results):
    for case in CASES:
        ours, stock = (np.load(folder / f"{case}.npz") for folder in (averaged_logits, stock_results))
        assert ours.files == stock.files == ["probabilities"]
        found, expected = ours["probabilities"], stock["probabilities"]
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        # stock's window is rounded to half precision: a relative 2^-11, some hundredths of a logit on patch borders
        np.testing.assert_allclose(found, expected, atol=0.02)
        with (
            (averaged_logits / f"{case}.pkl").open("rb") as file,
            (stock_results / f"{case}.pkl").open("rb") as other,
        ):
            assert pickle.load(file).keys() == pickle.load(other).keys()


def test_one_member_gives_the_same_by_both_averages_and_by_stock(
    stock_model, plain_dataset, predict_here, predict_with_stock, tmp_path, agreement
):
    stock = predict_with_stock(stock_model, plain_dataset.images, tmp_path / "stock", folds=[1], fp32_sums=True)
    for average in ("logits", "probabilities"):
        # the model by stock's flags: dataset, trainer, plans, configuration, fold, checkpoint
        flags = [
            *("-d", plain_dataset.number, "-tr", "nnUNetTrainer", "-p", plain_dataset.plans, "-c", "2d"),
            *("-f", 1, "-chk", "checkpoint_final.pth", "--average", average, "--maps", "none"),
        ]
        assert agreement(predict_here(plain_dataset.images, tmp_path / average, *flags), stock) == 1


def test_the_mean_of_the_folds_probabilities_is_the_default(
    stock_model, plain_dataset, predict_here, tmp_path, averaged_logits
):
    flags = ["-m", stock_model, "--maps", "none", "--save_probabilities"]
    both = predict_here(plain_dataset.images, tmp_path / "both", *flags)
    single = [predict_here(plain_dataset.images, tmp_path / f"{fold}", *flags, "-f", fold) for fold in FOLDS]
    for case in CASES:
        mean = np.mean([np.load(folder / f"{case}.npz")["probabilities"] for folder in single], axis=0)
        found = np.load(both / f"{case}.npz")["probabilities"]
        np.testing.assert_allclose(found, mean, atol=1e-3)
        # and not the same as stock's softmax of mean logits
        assert np.abs(found - np.load(averaged_logits / f"{case}.npz")["probabilities"]).max() > 0.01


# --- calibration, evaluation and the page ---


@pytest.fixture(scope="module")
def calibrated(stock_model, plain_dataset, run_here, predict_here, tmp_path_factory):
    """Predictions with what `nnunet_ext calibrate` fitted to both folds: one held-out case each."""
    assert run_here("calibrate", "-m", stock_model, "-device", "cpu", "--disable_progress_bar") == 0
    return predict_here(
        *(plain_dataset.images, tmp_path_factory.mktemp("calibrated"), "-m", stock_model, "--calibrated"),
        *("--average", "probabilities", "--save_probabilities", "--maps", "entropy", "confidence"),
    )


def test_calibration_says_what_it_was_fitted_on(calibrated, stock_model, plain_dataset):
    content = json.loads((stock_model / "calibration.json").read_text(encoding="utf-8"))
    assert [case["case"] for case in content["cases"]] == ["tumour_000", "tumour_001"]
    assert [member["name"] for member in content["fitted_on"]["members"]] == [
        "fold_0/checkpoint_final",
        "fold_1/checkpoint_final",
    ]


def test_calibrated_probabilities_leave_the_segmentation(calibrated, averaged_logits, labels_in):
    """One temperature for all classes: the most likely class stays the most likely."""
    for case, labels in labels_in(calibrated).items():
        with np.load(calibrated / f"{case}.npz") as content:
            probabilities = content["probabilities"]
        assert probabilities.sum(axis=0) == pytest.approx(1, abs=1e-4)
        assert np.array_equal(probabilities.argmax(axis=0).transpose(2, 1, 0), labels)  # (z, y, x) to (x, y, z)
        confidence = nibabel.load(calibrated / "maps" / "confidence" / f"{case}.nii.gz").get_fdata()
        assert probabilities.max(axis=0).transpose(2, 1, 0) == pytest.approx(confidence, abs=1e-5)


def test_two_patients_are_too_few_to_accept_anything(calibrated):
    """Two patients have no interval, so nothing is known about failures."""
    rows = read_cases(calibrated / "cases.csv")
    assert [row["verdict"] in ("review", "reject") for row in rows] == [True, True]
    assert [(row["predicted_dice_low"], row["predicted_dice_high"]) for row in rows] == [("", "")] * 2


def test_evaluation_has_the_keys_and_values_of_stock(
    calibrated, plain_dataset, run_here, evaluate_with_stock, tmp_path
):
    truths = plain_dataset.raw / "labelsTs"
    assert run_here("evaluate", truths, calibrated, "-o", tmp_path / "ours", *QUIETLY) == 0
    evaluate_with_stock(truths, calibrated, tmp_path / "stock.json")
    ours = json.loads((tmp_path / "ours" / "summary.json").read_text(encoding="utf-8"))
    stock = json.loads((tmp_path / "stock.json").read_text(encoding="utf-8"))
    assert {key: ours[key] for key in stock} == stock
    assert ours["nnunet_ext"]["case_figures"]["ece"]["cases"] == 2


def test_the_page_shows_both_cases(calibrated, plain_dataset, run_here, tmp_path):
    page = tmp_path / "report.html"
    truths = plain_dataset.raw / "labelsTs"
    assert run_here("report", calibrated, "--gt", truths, "-o", page, *QUIETLY) == 0
    text = page.read_text(encoding="utf-8")
    assert all(case in text for case in CASES)
    assert "data:image/png" in text


def test_other_members_than_those_calibrated_are_refused(
    calibrated, stock_model, plain_dataset, run_here, tmp_path, capsys
):
    status = run_here(
        *("predict", "-i", plain_dataset.images, "-o", tmp_path, "-m", stock_model),
        *("--members", "best", "--calibrated", "-device", "cpu"),
    )
    assert status == 1
    assert "its members is 'final', this ensemble's is 'best'" in capsys.readouterr().err


# --- error maps: where is the segmentation wrong? ---


def briefly(trainer):
    """Enough for a map that is not the same everywhere."""
    trainer.num_epochs = 1
    trainer.num_iterations_per_epoch = 20
    trainer.num_val_iterations_per_epoch = 1


@pytest.fixture(scope="module")
def error_dataset(stock_model, run_here, variables, plan_here):
    """Of what both folds held out, planned with tiny networks and with its own splits."""
    flags = ["--new-id", 892, "--corruptions", 1, "--disable_progress_bar", "-device", "cpu"]
    assert run_here("error-map", "dataset", "-m", stock_model, *flags) == 0
    raw = Path(variables["nnUNet_raw"]) / "Dataset892_PhantomPlainErrors"
    splits = Path(variables["nnUNet_preprocessed"]) / raw.name / "splits_final.json"
    own = splits.read_bytes()
    dataset = plan_here(raw, "2d")
    splits.write_bytes(own)  # in place of those of the tiny datasets
    return dataset


@pytest.fixture(scope="module")
def error_model(error_dataset, train_here, run_here):
    for fold in FOLDS:
        train_here(error_dataset, "2d", fold, "nnUNetTrainer", prepare=briefly)
    model = error_dataset.model("nnUNetTrainer", "2d")
    assert run_here("error-map", "fit", "-m", model, "-device", "cpu", "--disable_progress_bar") == 0
    return model


def test_the_error_dataset_shows_the_errors_of_the_fold_that_held_a_case_out(error_dataset, plain_dataset):
    """Channels: two of the image, then a mask of each label."""
    content = json.loads((error_dataset.raw / "dataset.json").read_text(encoding="utf-8"))
    assert content["channel_names"] == {"0": "T2", "1": "T1c", "2": "noNorm", "3": "noNorm"}
    assert content["labels"] == {"background": 0, "error": 1}
    files = content["dataset"]["tumour_000"]
    stored = [nibabel.load(error_dataset.raw / file).get_fdata() for file in (*files["images"], files["label"])]
    image = nibabel.load(plain_dataset.raw / "imagesTr" / "tumour_000_0000.nii.gz").get_fdata()
    truth = nibabel.load(plain_dataset.raw / "labelsTr" / "tumour_000.nii.gz").get_fdata()
    np.testing.assert_array_equal(stored[0], image)
    np.testing.assert_array_equal(stored[4], (stored[2] + 2 * stored[3]) != truth)


def test_a_corruption_is_where_its_case_is(error_dataset, variables):
    file = Path(variables["nnUNet_preprocessed"]) / error_dataset.raw.name / "splits_final.json"
    for split, held_out in zip(
        json.loads(file.read_text(encoding="utf-8")), ("tumour_000", "tumour_001"), strict=True
    ):
        assert {name.partition("__")[0] for name in split["val"]} == {held_out}
        assert {name.partition("__")[0] for name in split["train"]} == {"tumour_000", "tumour_001"} - {held_out}


def test_a_second_dataset_of_that_number_is_refused(error_dataset, stock_model, run_here, capsys):
    assert run_here("error-map", "dataset", "-m", stock_model, "--new-id", 892, "-device", "cpu") == 1
    assert error_dataset.raw.name in capsys.readouterr().err


def test_one_fold_is_too_few_to_train_and_validate_an_error_model(stock_model, run_here, capsys):
    assert run_here("error-map", "dataset", "-m", stock_model, "-f", 0, "--new-id", 893, "-device", "cpu") == 1
    assert "at least 2" in capsys.readouterr().err


@pytest.fixture(scope="module")
def judged(calibrated, error_model, plain_dataset, run_here, tmp_path_factory):
    """A copy of the calibrated predictions with the error map applied, twice."""
    folder = tmp_path_factory.mktemp("judged") / "predictions"
    shutil.copytree(calibrated, folder)
    flags = ["-m", error_model, "-i", plain_dataset.images, "-p", folder, "-device", "cpu", "--disable_progress_bar"]
    assert run_here("error-map", "apply", *flags) == 0
    first = read_cases(folder / "cases.csv")
    assert run_here("error-map", "apply", *flags) == 0
    assert read_cases(folder / "cases.csv") == first
    return folder


def test_the_error_map_is_a_probability_in_the_geometry_of_the_image(judged):
    for case in CASES:
        found, segmentation = (
            nibabel.load(judged / file) for file in (f"maps/error/{case}.nii.gz", f"{case}.nii.gz")
        )
        np.testing.assert_allclose(found.affine, segmentation.affine, atol=1e-6)
        assert found.shape == segmentation.shape
        assert 0 <= found.get_fdata().min() < found.get_fdata().max() <= 1


def test_expected_dice_and_flags_are_in_the_tables_and_no_verdict_is_milder(judged, calibrated):
    table = {row["case"]: row for row in read_cases(judged / "error_map.csv")}
    before = {row["case"]: row for row in read_cases(calibrated / "cases.csv")}
    for row in read_cases(judged / "cases.csv"):
        expected = float(table[row["case"]]["expected_dice"])
        assert float(row["expected_dice"]) == expected
        assert ("low_expected_dice" in row["flags"].split(";")) == (expected < 0.75)
        assert ("error map: expected Dice" in row["verdict_reason"]) == (expected < 0.75)
        words = ("accept", "review", "reject")
        assert words.index(row["verdict"]) >= words.index(before[row["case"]]["verdict"])


def test_the_error_map_is_compared_with_the_entropy(judged, plain_dataset, run_here, tmp_path, capsys):
    assert run_here("evaluate", plain_dataset.raw / "labelsTs", judged, "-o", tmp_path, *QUIETLY) == 0
    own = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["nnunet_ext"]
    assert own["wrong_slices"].keys() == {"confidence", "entropy", "error"}
    assert "error_error_auroc" in own["case_figures"]
    assert run_here("report", judged, "-o", tmp_path / "page.html", *QUIETLY) == 0


def test_another_model_is_no_error_model(stock_model, plain_dataset, run_here, tmp_path, capsys):
    flags = ["-i", plain_dataset.images, "-p", tmp_path, "-device", "cpu"]
    assert run_here("error-map", "apply", "-m", stock_model, *flags) == 1
    assert run_here("error-map", "fit", "-m", stock_model, "-device", "cpu") == 1
    assert "error-map dataset" in capsys.readouterr().err


# --- distillation: one network that learns from both folds ---


@pytest.fixture(scope="module")
def student(stock_model, plain_dataset, run_here, train_here, variables):
    """Trained on the case that fold 0 held out, and validated on that of fold 1, as a third fold; with its folder."""
    flags = ["-d", plain_dataset.number, "-c", "2d", "-p", plain_dataset.plans, "-m", stock_model]
    assert run_here("teach", *flags, "-device", "cpu", "--disable_progress_bar") == 0
    with third_fold(plain_dataset, variables):
        return train_here(plain_dataset, "2d", len(FOLDS), "nnUNetTrainerDistill", prepare=shortened)


@contextmanager
def third_fold(dataset, variables):
    """Splits with one more fold, whose cases the two others held out."""
    splits = Path(variables["nnUNet_preprocessed"]) / dataset.raw.name / "splits_final.json"
    before = splits.read_text(encoding="utf-8")
    third = {"train": ["tumour_000"], "val": ["tumour_001"]}
    splits.write_text(json.dumps([*json.loads(before), third]), encoding="utf-8")
    try:
        yield
    finally:
        splits.write_text(before, encoding="utf-8")


def test_a_student_learns_from_what_the_folds_say_of_their_held_out_cases(
    student, plain_dataset, predict_with_stock, averaged_logits, labels_in, tmp_path
):
    """Stock nnU-Net predicts with it, and finds the foreground that its teachers find."""
    divergence = student.logger.get_value("loss term Distill", step=None)
    assert divergence[-1] < 0.7 * divergence[0]
    model = plain_dataset.model("nnUNetTrainerDistill", "2d")
    found = predict_with_stock(model, plain_dataset.images, tmp_path / "student", folds=[len(FOLDS)])
    of_teachers = labels_in(averaged_logits)
    for case, labels in labels_in(found).items():
        foreground = (labels > 0, of_teachers[case] > 0)
        assert 2 * np.sum(foreground[0] & foreground[1]) / np.sum(foreground) > 0.6, case


def test_a_case_that_no_fold_held_out_cannot_be_trained_on(student, plain_dataset, train_here):
    """Fold 0 trains on the four cases that both folds trained on."""
    with pytest.raises(TeacherError, match="4 of 5 have none, such as tumour_002"):
        train_here(plain_dataset, "2d", 0, "nnUNetTrainerDistill", prepare=briefly)


# --- pseudo-labels ---


def test_stock_trains_on_what_the_folds_labelled(
    averaged_logits, plain_dataset, run_here, plan_here, train_here, variables
):
    """The test images as unlabelled ones: two cases beside six, held out by no fold."""
    assert (
        run_here(
            *("pseudo-label", "-d", plain_dataset.number, "-i", plain_dataset.images, "-p", averaged_logits),
            *("--new-id", 995, "--name", "Pseudo", "--disable_progress_bar"),
        )
        == 0
    )
    raw = Path(variables["nnUNet_raw"]) / "Dataset995_Pseudo"
    splits = Path(variables["nnUNet_preprocessed"]) / raw.name / "splits_final.json"
    folds = json.loads(splits.read_text(encoding="utf-8"))
    assert [fold["val"] for fold in folds] == [["tumour_000"], ["tumour_001"]]
    assert all(set(CASES) < set(fold["train"]) for fold in folds)
    record = json.loads((raw / "pseudo_labels.json").read_text(encoding="utf-8"))
    assert [member["name"] for member in record["members"]] == [f"fold_{fold}/checkpoint_final" for fold in FOLDS]
    dataset = plan_here(raw, "2d")  # nnU-Net checks and preprocesses labelled and pseudo-labelled cases alike
    splits.write_text(json.dumps(folds), encoding="utf-8")  # in place of those for small datasets

    def one_epoch(trainer):
        trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 4, 1

    for name in ("nnUNetTrainer", "nnUNetTrainerCaseWeights"):
        trainer = train_here(dataset, "2d", 0, name, prepare=one_epoch)
        assert trainer.label_manager.has_ignore_label
        assert np.isfinite(trainer.logger.get_value("train_losses", 0))


def test_a_mean_teacher_and_a_student_learn_from_images_without_labels(
    student, stock_model, plain_dataset, run_here, train_here, variables, capsys
):
    """The test images again; a damaged file is named, and the others are taken."""
    images = plain_dataset.raw / "imagesUn"
    shutil.copytree(plain_dataset.images, images)
    (images / "cut_0000.nii.gz").write_bytes(b"no image")
    flags = ("-d", plain_dataset.number, "-c", "2d", "-p", plain_dataset.plans, "-npp", 1, "--disable_progress_bar")
    assert run_here("preprocess-unlabelled", *flags) == 1
    folder = Path(variables["nnUNet_preprocessed"]) / plain_dataset.raw.name / f"{plain_dataset.plans}_2d_unlabelled"
    assert sorted(file.name for file in folder.glob("*.pkl")) == [f"{case}.pkl" for case in CASES]
    trainer = train_here(plain_dataset, "2d", 0, "nnUNetTrainerMeanTeacher_1epochs_3iters")
    assert 0 <= trainer.logger.get_value("loss term MeanTeacher", 0) < 1
    assert (Path(trainer.output_folder) / "checkpoint_ema.pth").is_file()
    flags = ("-d", plain_dataset.number, "-c", "2d", "-p", plain_dataset.plans, "-m", stock_model, "-device", "cpu")
    assert run_here("teach", "--unlabelled", *flags, "--disable_progress_bar") == 0
    assert "1 images without labels are not preprocessed, such as cut" in capsys.readouterr().out
    with third_fold(plain_dataset, variables):
        taught = train_here(plain_dataset, "2d", len(FOLDS), "nnUNetTrainerDistill_Unlabelled_1epochs_3iters")
    assert np.isfinite(taught.logger.get_value("loss term Unlabelled", 0))
