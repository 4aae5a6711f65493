"""Warnings of an evaluation."""

from __future__ import annotations

from nnunet_ext.evaluation.remarks import warn_of_unknown_spacing


def test_a_spacing_that_neither_file_knows_is_warned_of(tmp_path, caplog):
    (tmp_path / "b.json").touch()
    warn_of_unknown_spacing(
        [(tmp_path / f"{case}.tif", tmp_path / "out" / f"{case}.tif") for case in "ab"], "Tiff3DIO"
    )
    assert "No spacing is known of 1 of 2 cases, such as a.tif" in caplog.text


def test_pictures_never_know_their_spacing_and_nifti_always(tmp_path, caplog):
    warn_of_unknown_spacing([(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")], "SimpleITKIO")
    assert caplog.text == ""
    warn_of_unknown_spacing([(tmp_path / "a.png", tmp_path / "b.png")], "NaturalImage2DIO")
    assert "No spacing is known of 1 of 1 cases" in caplog.text
