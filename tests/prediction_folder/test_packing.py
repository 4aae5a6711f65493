"""Image files: whole, packed where their name asks for it, and the same bytes for the same image."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from nnunet_ext.prediction_folder.packing import write_whole

IMAGE = bytes(352) + b"voxels"  # a header of NIfTI and six bytes


def test_a_packed_file_holds_what_was_written_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    asked_for = []

    def write(path: Path) -> None:
        asked_for.append(path.name)
        path.write_bytes(IMAGE)

    write_whole(write, tmp_path / "case.nii.gz", voxel_bytes=6)
    assert asked_for == ["case.nii"]
    assert [path.name for path in tmp_path.iterdir()] == ["case.nii.gz"]
    assert gzip.decompress((tmp_path / "case.nii.gz").read_bytes()) == IMAGE


def test_other_formats_are_left_as_their_writer_wrote_them(tmp_path: Path) -> None:
    for name in ("case.nii", "case.nrrd", "case.tif"):
        write_whole(lambda path: path.write_bytes(IMAGE) and None, tmp_path / name, voxel_bytes=6)
        assert (tmp_path / name).read_bytes() == IMAGE


def test_the_same_image_gives_the_same_bytes_without_name_and_time(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_whole(lambda path: path.write_bytes(IMAGE) and None, tmp_path / name, voxel_bytes=6)
    packed = (tmp_path / "a.nii.gz").read_bytes()
    assert packed == (tmp_path / "b.nii.gz").read_bytes()
    assert packed[3:8] == bytes(5)  # RFC 1952: no flags, so no name; and no time


@pytest.mark.parametrize(("name", "least"), [("case.nii.gz", 358), ("case.nii", 358), ("case.gipl", 262)])
def test_a_file_without_its_last_voxel_is_refused(tmp_path: Path, name: str, least: int) -> None:
    with pytest.raises(OSError, match=rf"{name} was not written completely: {least - 1} of at least {least} bytes"):
        write_whole(lambda path: path.write_bytes(bytes(least - 1)) and None, tmp_path / name, voxel_bytes=6)
