"""An output folder is of one ensemble, and the files of a case are of one run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnunet_ext.inference import EnsemblePredictor
from nnunet_ext.prediction_folder.agreement import require_agreement
from nnunet_ext.prediction_folder.case_table import read_cases
from nnunet_ext.prediction_folder.provenance import RECORD_NAME, OtherEnsembleError

Opened = Callable[..., EnsemblePredictor]


def content(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(files.items())}


@pytest.fixture
def images_of(make_image: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """`images_of("a", "b")`: a folder with these cases."""

    def make(*cases: str) -> Path:
        for case in cases:
            folder = make_image(tmp_path / f"images {' '.join(cases)}", case, shape_zyx=(2, 20, 20))
        return folder

    return make


@pytest.fixture
def opened(make_model_folder: Callable[..., Path]) -> Opened:
    """`opened(folds=[0])`: a predictor of the one model, which has two folds."""
    folder = make_model_folder(folds=(0, 1))

    def open_with(**settings: Any) -> EnsemblePredictor:
        return EnsemblePredictor.from_model_folders(folder, device="cpu", allow_tqdm=False, **settings)

    return open_with


@pytest.fixture
def output(opened: Opened, images_of: Callable[..., Path], tmp_path: Path) -> Path:
    """Case `a`, predicted with both folds."""
    opened().predict_from_files(images_of("a"), tmp_path / "out")
    return tmp_path / "out"


OTHERS = [
    ({"folds": [0]}, "members: found 2"),
    ({"average": "logits"}, "average: found probabilities, asked for logits"),
    ({"tta_members": True}, "tta_members: found False"),
    ({"tta": "none"}, "tta: found flips"),
    ({"model_weights": [2]}, "model_weights: found none"),
    ({"tile_step_size": 0.25}, "tile_step_size: found 0.5"),
    ({"early_exit": "label"}, "early_exit: found none"),
    ({"fast_resampling": True}, "fast_resampling: found False"),
]


@pytest.mark.parametrize(("settings", "difference"), OTHERS, ids=[next(iter(settings)) for settings, _ in OTHERS])
def test_another_ensemble_is_refused_and_changes_nothing(opened, images_of, output, settings, difference):
    before = content(output)
    for overwrite in (False, True):
        with pytest.raises(OtherEnsembleError, match=difference):
            opened(**settings).predict_from_files(images_of("a"), output, overwrite=overwrite)
    assert content(output) == before


@pytest.mark.parametrize("settings", [settings for settings, _ in OTHERS], ids=lambda settings: next(iter(settings)))
def test_a_folder_that_was_just_predicted_agrees_with_its_record(opened, images_of, tmp_path, settings):
    opened(**settings).predict_from_files(images_of("a", "b"), tmp_path / "out")
    require_agreement(tmp_path / "out")


def test_a_part_of_another_ensemble_is_refused(opened, images_of, tmp_path):
    """Also where no case is predicted yet: the other parts of the prediction are running."""
    images = images_of("a", "b")
    opened().predict_from_files(images, tmp_path / "out", num_parts=2, part_id=0)
    (tmp_path / "out" / "a.nii.gz").unlink()
    with pytest.raises(OtherEnsembleError, match="members: found 2"):
        opened(folds=[0]).predict_from_files(images, tmp_path / "out", num_parts=2, part_id=1)
    opened().predict_from_files(images, tmp_path / "out", num_parts=2, part_id=1)


def test_a_folder_without_results_is_free_for_another_ensemble(opened, images_of, output):
    (output / "a.nii.gz").unlink()  # as a run leaves it that ends before its first case
    opened(folds=[0]).predict_from_files(images_of("a"), output)
    assert [member["name"] for member in json.loads((output / RECORD_NAME).read_text())["members"]] == [
        "fold_0/checkpoint_final"
    ]


def test_the_same_ensemble_by_another_member_rule_may_continue(opened, images_of, output):
    again = opened(members="checkpoint_final.pth").predict_from_files(images_of("a"), output, overwrite=False)
    assert again.skipped == ["a"]


def test_a_folder_of_an_earlier_version_is_compared_by_its_members(opened, images_of, output):
    record = json.loads((output / RECORD_NAME).read_text())
    del record["ensemble"]
    (output / RECORD_NAME).write_text(json.dumps(record))
    assert opened().predict_from_files(images_of("a"), output, overwrite=False).skipped == ["a"]
    (output / RECORD_NAME).write_text(json.dumps(record))
    with pytest.raises(OtherEnsembleError, match=r"members: found 2 .*asked for 1"):
        opened(folds=[0]).predict_from_files(images_of("a"), output, overwrite=False)


def test_a_folder_that_stock_predicted_is_refused(opened, images_of, output):
    (output / RECORD_NAME).unlink()
    with pytest.raises(OtherEnsembleError, match="no record of its ensemble"):
        opened().predict_from_files(images_of("a"), output, overwrite=False)


def test_images_may_lie_in_the_output_folder(opened, images_of):
    images = images_of("a", "b")
    assert opened().predict_from_files(images, images).predicted == ["a", "b"]
    assert opened().predict_from_files(images, images, overwrite=False).skipped == ["a", "b"]


# --- the same ensemble again ---


@pytest.mark.parametrize("overwrite", [True, False])
def test_cases_of_another_run_keep_their_rows_and_files(opened, images_of, output, tmp_path, overwrite):
    opened().predict_from_files(images_of("b"), output, overwrite=overwrite)
    opened().predict_from_files(images_of("a", "b"), tmp_path / "at once")
    together, at_once = content(output), content(tmp_path / "at once")
    assert together["cases.csv"] == at_once["cases.csv"]
    assert list(together) == list(at_once)


def test_parts_keep_the_rows_of_another_run(opened, images_of, output):
    images = images_of("b", "c")
    for part in (1, 0):
        opened().predict_from_files(images, output, num_parts=2, part_id=part)
    assert [row["case"] for row in read_cases(output / "cases.csv")] == ["a", "b", "c"]


def test_files_of_a_case_that_are_not_written_again_are_removed(opened, images_of, tmp_path):
    both, everything = tmp_path / "out", {"save_members": True, "maps": ["entropy", "variance"]}
    opened().predict_from_files(images_of("a", "b"), both, save_probabilities=True, **everything)
    opened().predict_from_files(images_of("a"), both, maps=["entropy"])
    names = [path.relative_to(both).as_posix() for path in both.rglob("a.*")]
    assert sorted(names) == ["a.nii.gz", "maps/entropy/a.nii.gz"]
    assert len(list(both.rglob("b.*"))) == 1 + 2 + 2 + 2  # segmentation, npz and pkl, two maps, two members


def test_a_case_without_a_row_is_predicted_again(opened, images_of, output):
    (output / "cases.csv").write_text("case,members\n")
    assert opened().predict_from_files(images_of("a"), output, overwrite=False).predicted == ["a"]
    assert [row["case"] for row in read_cases(output / "cases.csv")] == ["a"]


def test_a_case_that_fails_keeps_the_files_and_the_row_of_before(opened, images_of, output):
    """They belong to one run, and the command reports that the case failed."""
    before = content(output)
    images = images_of("a")
    (images / "a_0000.nii.gz").write_bytes(b"no image")
    assert list(opened().predict_from_files(images, output).failed) == ["a"]
    assert content(output) == before
