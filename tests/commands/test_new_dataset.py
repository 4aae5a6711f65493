"""A raw dataset and its splits: both or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_ext.commands.new_dataset import new_dataset


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return tmp_path


def contents(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_dataset_appears_with_its_splits(folders):
    with new_dataset(8, "Small") as made:
        made.staging.mkdir()
        (made.staging / "dataset.json").touch()
        made.splits.touch()
        assert not made.folder.exists()
    assert contents(folders) == {
        "nnUNet_raw/Dataset008_Small/dataset.json",
        "nnUNet_preprocessed/Dataset008_Small/splits_final.json",
    }


def test_a_failure_leaves_neither_and_the_number_free(folders):
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a case fails"), new_dataset(8, "Small") as made:
            made.staging.mkdir()
            made.splits.touch()
            raise RuntimeError("a case fails")
    assert contents(folders) == set()


def test_a_folder_that_takes_no_files_is_refused_before_the_work(folders):
    (folders / "nnUNet_preprocessed").touch()
    with pytest.raises(OSError, match="Set nnUNet_preprocessed"), new_dataset(8, "Small"):
        pytest.fail("must not begin")


def test_an_unknown_folder_is_refused_before_the_work(folders, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed")
    with pytest.raises(ValueError, match="nnUNet_preprocessed must be set"), new_dataset(8, "Small"):
        pytest.fail("must not begin")
