"""The demo's table. The demo itself runs in the end-to-end tests."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_ext.commands.demo import DemoCase, case_lines, run_demo


def demo_case(name: str, predicted_dice: str) -> DemoCase:
    volume = np.ones((1, 2, 2), np.uint8)
    row = {"predicted_dice": predicted_dice, "pairwise_dice": "0.95", "verdict": "review"}
    return DemoCase(name, volume, volume, volume, volume, volume, row)


def test_predictions_that_are_not_of_a_demo_stay(tmp_path):
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "mine.nii.gz").touch()
    with pytest.raises(FileExistsError, match="is not of one"):
        run_demo(tmp_path, say=print)
    assert (tmp_path / "predictions" / "mine.nii.gz").is_file()
    assert not (tmp_path / "nnUNet_raw").exists()


def test_a_case_without_an_estimate_says_so_in_its_column():
    _, header, with_estimate, without = case_lines([demo_case("heart_a", "0.873"), demo_case("heart_b", "")])
    assert "predicted Dice" in header
    end = header.index("predicted Dice") + len("predicted Dice")
    assert with_estimate[:end].endswith(" 0.87")
    assert without[:end].endswith("  no estimate")
