"""Files are whole or absent under their name."""

import json
from pathlib import Path

import pytest

from nnunet_ext.files.atomic import PARTIAL_PREFIX, atomic_path, write_json


def names_in(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_file_takes_its_name_only_at_the_end(tmp_path):
    final = tmp_path / "case.csv"
    with atomic_path(final) as temporary:
        temporary.write_text("whole")
        assert not final.exists()
    assert final.read_text() == "whole"
    assert names_in(tmp_path) == ["case.csv"]


def test_temporary_file_lies_beside_the_final_one_and_keeps_its_ending(tmp_path):
    # Image writers choose the format by the ending, and a rename is atomic only within one file system.
    with atomic_path(tmp_path / "case.nii.gz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"")


def test_name_may_be_a_string(tmp_path):
    with atomic_path(str(tmp_path / "case.csv")) as temporary:
        temporary.write_text("whole")
    assert names_in(tmp_path) == ["case.csv"]


def test_existing_file_is_replaced_on_success(tmp_path):
    final = tmp_path / "case.csv"
    final.write_text("old and longer")
    with atomic_path(final) as temporary:
        temporary.write_text("new")
    assert final.read_text() == "new"


@pytest.mark.parametrize("failure", [ValueError, OSError, KeyboardInterrupt])
def test_failure_leaves_nothing_behind(tmp_path, failure):
    with pytest.raises(failure), atomic_path(tmp_path / "case.csv") as temporary:
        temporary.write_text("half")
        raise failure
    assert names_in(tmp_path) == []


def test_failure_before_anything_was_written_is_reported_as_it_is(tmp_path):
    with pytest.raises(ValueError, match="no data"), atomic_path(tmp_path / "case.csv"):
        raise ValueError("no data")


def test_existing_file_is_kept_on_failure(tmp_path):
    final = tmp_path / "case.csv"
    final.write_text("old")
    with pytest.raises(ValueError), atomic_path(final) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert final.read_text() == "old"
    assert names_in(tmp_path) == ["case.csv"]


def test_existing_file_is_kept_when_the_rename_fails(tmp_path, monkeypatch):
    final = tmp_path / "case.csv"
    final.write_text("old")

    def refused_rename(source, target):
        raise PermissionError("the file is open in another program")

    monkeypatch.setattr(Path, "replace", refused_rename)
    with pytest.raises(PermissionError), atomic_path(final) as temporary:
        temporary.write_text("new")
    assert final.read_text() == "old"
    assert names_in(tmp_path) == ["case.csv"]


def test_what_a_killed_run_left_is_overwritten(tmp_path):
    (tmp_path / f"{PARTIAL_PREFIX}case.csv").write_text("half of a killed run, longer than the new content")
    with atomic_path(tmp_path / "case.csv") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "case.csv").read_text() == "whole"
    assert names_in(tmp_path) == ["case.csv"]


def test_writing_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "case.csv"):
        pass
    assert names_in(tmp_path) == []


def test_json_is_read_back_and_ends_with_a_newline(tmp_path):
    write_json({"Größe": [1, 2.5, None]}, tmp_path / "run.json")
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"Größe": [1, 2.5, None]}
    assert text.endswith("}\n")


def test_content_that_is_no_json_keeps_the_old_file(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(TypeError):
        write_json({"key": object()}, tmp_path / "run.json")
    assert (tmp_path / "run.json").read_text() == "{}"
    assert names_in(tmp_path) == ["run.json"]
