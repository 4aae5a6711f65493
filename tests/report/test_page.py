from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_ext.evaluation.reliability import ReliabilityBins
from nnunet_ext.evaluation.results import CaseEvaluation, FolderEvaluation
from nnunet_ext.files.checkpoints import save_checkpoint
from nnunet_ext.prediction_folder.case_table import TABLE_NAME, CaseTable, read_cases
from nnunet_ext.report import gather, write_report
from nnunet_ext.report.data import OperatingPoint

VOID = {"meta", "img", "link", "br", "input"}


class Page(HTMLParser):
    """What a page says and what it would load; and that every element is closed."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open += [] if tag in VOID else [tag]
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"}.intersection(self.open) and data.strip():
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def page_of(tmp_path: Path, prediction: Path, *, shown_cases: int = 12, **options: object) -> Page:
    file = tmp_path / "report.html"
    write_report(gather(prediction, **options), file, shown_cases=shown_cases)  # type: ignore[arg-type]
    return Page(file)


def evaluation() -> FolderEvaluation:
    cases = [
        CaseEvaluation(
            name,
            {"RV": {"dice": dice, "hd95_mm": 3.25}},
            {"mean_dice": dice, "ece": 0.0432, "entropy_error_auroc": 0.912},
            {},
            ReliabilityBins(np.array([2, 8]), np.array([0.8, 7.2]), np.array([1, 6])),
        )
        for name, dice in (("heart_a", 0.912), ("heart_b", 0.413), ("heart_c", 0.789))
    ]
    return FolderEvaluation({"RV": (1,)}, cases, {"heart_d": "There is no truth."})


def calibrate(folder: Path) -> None:
    """Gives every case a verdict."""
    rows = read_cases(folder / TABLE_NAME)
    table = CaseTable(folder, keep_existing=False)
    for row, verdict, dice in zip(rows, ("accept", "reject", "review"), (0.93, 0.47, 0.81), strict=True):
        table.add(
            {
                **row,
                "predicted_dice": dice,
                "predicted_dice_low": dice - 0.05,
                "predicted_dice_high": dice + 0.05,
                "verdict": verdict,
                "verdict_reason": f"because of {verdict}",
            }
        )


def test_the_worst_case_comes_first_with_its_numbers(tmp_path, prediction):
    page = page_of(tmp_path, prediction)
    assert page.text.index("heart_b") < page.text.index("heart_c") < page.text.index("heart_a")
    assert "1 heart_b pairwise Dice 0.520" in page.text
    assert "36.1 ± 17 %" in page.text
    assert "Research software, not a medical device." in page.text


def test_a_folder_that_is_not_calibrated_says_how_to_calibrate(tmp_path, prediction):
    page = page_of(tmp_path, prediction)
    assert "not calibrated" in page.text
    assert "ordered by pairwise Dice" in page.text
    assert "nnunet_ext calibrate" in page.text


def test_with_one_member_nothing_is_said_of_disagreement_but_how_to_see_some(tmp_path, prediction):
    """Also of a table of an earlier version, whose mutual information is 0, and of a calibration with such rows."""
    rows = read_cases(prediction / TABLE_NAME)
    table = CaseTable(prediction, keep_existing=False)
    for row in rows:
        table.add({**row, "members": "1", "pairwise_dice": ""})
    training = [{"case": "t", "members": 1, "mutual_information": 1e-9, "mean_entropy": 0.1, "dice": 0.9}]
    page = page_of(tmp_path, prediction, training_rows=training)
    body, _ = page.text.split("How to read this page")
    assert "mutual information 0" not in page.text
    assert "Mutual information" not in body  # no panel
    assert page.text.count("lie outside the range") == 1  # of the mean entropy alone
    assert "One member: " in body
    assert "--tta-members" in body


def test_with_several_members_there_is_no_such_hint(tmp_path, prediction):
    assert "One member: " not in page_of(tmp_path, prediction).text


def test_verdicts_are_counted_and_explained(tmp_path, prediction):
    calibrate(prediction)
    page = page_of(tmp_path, prediction)
    assert "1 ✓ accept 1 ! review 1 ✕ reject" in page.text
    assert "✕ reject because of reject" in page.text
    assert "predicted Dice 0.47 (0.42 to 0.52)" in page.text
    assert "not calibrated" not in page.text


def test_a_case_outside_of_what_calibration_saw_has_no_estimate_instead_of_a_number(tmp_path, prediction):
    """Neither on its card, nor in the table, nor as a drawing of an interval from 0 to 1."""
    calibrate(prediction)
    rows = read_cases(prediction / TABLE_NAME)
    unseen = {"predicted_dice": None, "predicted_dice_low": 0.0, "predicted_dice_high": 1.0, "verdict": "review"}
    CaseTable(prediction, keep_existing=True).add({**rows[1], **unseen})
    page = page_of(tmp_path, prediction)
    assert page.text.index("heart_b") < page.text.index("heart_c")  # before the other one to review
    assert "predicted Dice no estimate pairwise Dice 0.520" in page.text
    assert "heart_b ! review no estimate 0.520" in page.text
    assert "0.00 to 1.00" not in page.text
    assert page.source.count("predicted Dice 0.") == 2  # the drawings of the other two


def test_nothing_is_loaded_from_elsewhere(tmp_path, prediction, write_image, entropy):
    write_image(entropy, prediction / "maps" / "entropy" / "heart_b.nii.gz")
    page = page_of(tmp_path, prediction)
    assert page.loaded
    assert all(target.startswith(("#", "data:image/webp;base64,")) for target in page.loaded)
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert "default-src 'none'" in page.source


def test_names_are_escaped(tmp_path, prediction):
    rows = read_cases(prediction / TABLE_NAME)
    CaseTable(prediction, keep_existing=False).add({**rows[0], "case": "<b>x", "flags": ["<i>"]})
    page = page_of(tmp_path, prediction)
    assert "<b>x" not in page.source
    assert "&lt;b&gt;x" in page.source
    assert "<i>," not in page.source


def test_each_slice_has_its_segmentation_and_its_uncertainty(tmp_path, prediction, write_image, entropy):
    write_image(entropy, prediction / "maps" / "entropy" / "heart_b.nii.gz")
    page = page_of(tmp_path, prediction, shown_cases=1)
    assert page.tags.count("img") == 6  # slices 1, 2 and 3
    assert "slice 3 of 5 most uncertain" in page.text
    assert "slice 2 of 5 second most uncertain, first with foreground" in page.text
    assert 'alt="heart_b, slice 3 of 5: entropy"' in page.source


def test_slices_are_those_along_the_first_axis_of_the_plans(tmp_path, prediction, write_image, segmentation, entropy):
    """RV and LV are in x 4 to 8 and 9 to 13 of 20; the entropy is in x 8 and 9."""
    write_image(entropy, prediction / "maps" / "entropy" / "heart_b.nii.gz")
    write_image(segmentation, tmp_path / "truth" / "heart_b.nii.gz")
    plans = {"image_reader_writer": "NibabelIO", "transpose_forward": [2, 0, 1]}
    (prediction / "plans.json").write_text(json.dumps(plans))
    page = page_of(tmp_path, prediction, shown_cases=1, truth=tmp_path / "truth")
    assert "slice 5 of 20 first with foreground" in page.text
    assert "slice 9 of 20 most uncertain" in page.text
    assert "slice 10 of 20 second most uncertain" in page.text
    assert "slice 14 of 20 last with foreground" in page.text


def test_without_maps_and_images_the_segmentation_is_drawn_on_black(tmp_path, prediction):
    page = page_of(tmp_path, prediction, shown_cases=1)
    assert "No image: drawn on black." in page.text
    assert page.tags.count("img") == 2  # the largest slice is the first, and the last


def test_a_truth_is_outlined(tmp_path, prediction, write_image, segmentation):
    truth = tmp_path / "truth"
    write_image(segmentation, truth / "heart_b.nii.gz")
    page = page_of(tmp_path, prediction, truth=truth)
    assert "and outline of the truth" in page.source


def test_what_cannot_be_read_is_said_and_left_out(tmp_path, prediction, write_image):
    (prediction / "heart_b.nii.gz").write_bytes(b"no image")
    images = tmp_path / "images"
    write_image(np.zeros((2, 3, 4)), images / "heart_c_0000.nii.gz")
    (images / "heart_a_0000.nii.gz").write_bytes(b"no image")
    page = page_of(tmp_path, prediction, images=images)
    assert "No slices: heart_b.nii.gz cannot be read" in page.text
    assert "The image has shape (2, 3, 4), the segmentation (5, 24, 20); it is left out." in page.text
    assert "The image cannot be read (ImageFileError) and is left out." in page.text
    assert str(tmp_path) not in page.source


def test_only_the_worst_cases_are_drawn_and_all_are_in_the_table(tmp_path, prediction):
    page = page_of(tmp_path, prediction, shown_cases=1)
    assert page.tags.count("article") == 1
    assert "The 1 worst of 3 cases" in page.text
    assert page.text.count("heart_a") == 1
    assert page_of(tmp_path, prediction, shown_cases=0).tags.count("article") == 0
    with pytest.raises(ValueError, match="found -1"):
        page_of(tmp_path, prediction, shown_cases=-1)


def test_an_evaluation_has_its_figures(tmp_path, prediction):
    point = OperatingPoint("pairwise_dice", 0.7)
    page = page_of(tmp_path, prediction, evaluation=evaluation(), operating_point=point)
    assert "0.70 mean Dice" in page.text  # of 0.912, 0.413 and 0.789
    assert "Reliability: ECE 0.1400 over all voxels" in page.text  # 0.2 · |0.5 - 0.4| + 0.8 · |0.75 - 0.9|
    assert "accepts 67 % of them" in page.text
    assert "Dice against pairwise Dice" in page.text
    assert "median 0.789 worst 0.413" in page.text
    assert "heart_d : There is no truth." in page.text


def test_verdicts_are_held_against_the_truth(tmp_path, prediction):
    """Predicted 0.93, 0.47 and 0.81, each ± 0.05; true 0.912, 0.413 (rejected: caught) and 0.789."""
    calibrate(prediction)
    page = page_of(tmp_path, prediction, evaluation=evaluation())
    assert "2 of 3 cases (67%)" in page.text
    assert "Of 1 failure (Dice below 0.75) the verdicts caught 1" in page.text
    assert "holds the true Dice" not in page_of(tmp_path, prediction).text


def test_without_an_evaluation_nothing_is_said_about_the_truth(tmp_path, prediction):
    page = page_of(tmp_path, prediction)
    assert "Against the truth" not in page.text
    assert "AURC" not in page.text


def test_these_cases_are_compared_with_the_training_folds(tmp_path, prediction):
    rows = [{"case": "t", "pairwise_dice": 0.9, "dice": 0.9}, {"case": "u", "pairwise_dice": "0.8", "dice": 0.8}]
    page = page_of(tmp_path, prediction, training_rows=rows)
    assert "Compared with the training folds" in page.text
    assert "3 of 3 cases lie outside the range of the training folds." in page.text  # 0.52, 0.78 and, above, 0.91


def test_several_folds_are_compared_by_what_the_calibration_judged(tmp_path, prediction):
    """Members of two folds agree less than those of one, which predicted the training cases."""
    members = [{"name": fold, "file": f"/gone/model/{fold}/checkpoint_final.pth"} for fold in ("fold_0", "fold_1")]
    (prediction / "predict_args.json").write_text(json.dumps({"members": members}))
    table = CaseTable(prediction, keep_existing=False)
    for row in read_cases(prediction / TABLE_NAME):
        table.add({**row, "judged_confidence": 0.85})
    rows = [{"case": name, "pairwise_dice": dice, "mean_entropy": 0.1} for name, dice in (("t", 0.9), ("u", 0.8))]
    page = page_of(tmp_path, prediction, training_rows=rows, judged_column="pairwise_dice")
    assert "0 of 3 cases lie outside the range of the training folds." in page.text
    assert page.text.count("lie outside the range") == 1  # no panel of the ensemble's mean entropy


def test_a_model_that_is_here_shows_its_training_and_its_samples(tmp_path, prediction):
    fold = tmp_path / "Dataset007_Heart" / "nnUNetTrainerCyclical__nnUNetPlans__2d" / "fold_0"
    fold.mkdir(parents=True)
    log = {"train_losses": [0.5, 0.1], "val_losses": [0.5, 0.2], "mean_fg_dice": [0.5, 0.8], "lrs": [0.1, 0.01]}
    save_checkpoint({"logging": log}, fold / "checkpoint_final.pth")
    entries = []
    for epoch, value in enumerate((0.0, 1.0, 5.0)):
        save_checkpoint({"network_weights": {"w": torch.tensor([value, 2 * value])}}, fold / f"s{epoch}.pth")
        entries.append(
            {"file": f"s{epoch}.pth", "cycle": 0, "epoch": epoch, "epoch_in_cycle": epoch, "learning_rate": 0.1,
             "pseudo_dice": None, "sha256": ""}
        )  # fmt: skip
    (fold / "samples.json").write_text(json.dumps({"samples": entries}))
    members = [{"name": f"fold_0/s{epoch}", "file": str(fold / f"s{epoch}.pth")} for epoch in range(3)]
    (prediction / "predict_args.json").write_text(json.dumps({"members": members}))
    page = page_of(tmp_path, prediction)
    assert "Dataset007_Heart" in page.text
    assert "the last pseudo Dice 0.800" in page.text
    assert "3 of 3 samples, joined in training order. The two axes explain 100 %" in page.text


def test_a_model_that_is_elsewhere_is_a_line(tmp_path, prediction):
    members = [{"name": "fold_0", "file": "/gone/Dataset007_Heart/nnUNetTrainer__p__2d/fold_0/checkpoint_final.pth"}]
    (prediction / "predict_args.json").write_text(json.dumps({"members": members}))
    assert "nnUNetTrainer__p__2d is not on this machine" in page_of(tmp_path, prediction).text


def test_a_2d_image_of_a_format_without_floats_is_drawn(tmp_path, prediction):
    from skimage.io import imsave
    from tifffile import imwrite

    labels = np.zeros((24, 20), dtype=np.uint8)
    labels[4:16, 4:9] = 1
    imsave(prediction / "heart_b.png", labels, check_contrast=False)
    (prediction / "maps" / "entropy").mkdir(parents=True)
    imwrite(prediction / "maps" / "entropy" / "heart_b.tif", (labels * 0.5).astype(np.float32))
    dataset = {"channel_names": {"0": "photo"}, "labels": {"background": 0, "RV": 1}, "file_ending": ".png"}
    (prediction / "dataset.json").write_text(json.dumps(dataset))
    (prediction / "plans.json").write_text(json.dumps({"image_reader_writer": "NaturalImage2DIO"}))
    page = page_of(tmp_path, prediction, shown_cases=1)
    assert "slice 1 of 1 most uncertain" in page.text
    assert page.tags.count("img") == 2


def test_a_failed_report_leaves_the_old_one(tmp_path, prediction):
    file = tmp_path / "report.html"
    file.write_text("old")
    data = gather(prediction)
    data.cases[0].row["pairwise_dice"] = "much"  # type: ignore[index]
    with pytest.raises(ValueError, match="decimal mark"):
        write_report(data, file)
    assert file.read_text() == "old"
