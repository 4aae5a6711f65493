"""Which files of a folder are there for a person."""

from __future__ import annotations

from nnunet_ext.files.listing import visible_files


def test_names_that_begin_with_a_dot_are_left_out(tmp_path):
    for name in ("b.pth", "a.pth", "._a.pth", ".DS_Store", ".partial-c.pth", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in visible_files(tmp_path)] == ["a.pth", "b.pth", "notes.txt"]
    assert [path.name for path in visible_files(tmp_path, "*.pth")] == ["a.pth", "b.pth"]
