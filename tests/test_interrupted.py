"""Ctrl-C in any command: one line, status 130, no traceback."""

from __future__ import annotations

from typing import Any

import pytest

from nnunet_ext.cli import main
from nnunet_ext.cli.command import INTERRUPTED
from nnunet_ext.prediction_folder.case_table import CaseTable


def press_ctrl_c(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_predict_says_what_is_complete_and_how_to_go_on(tmp_path, monkeypatch, capsys):
    table = CaseTable(tmp_path, keep_existing=False)
    for case in ("a", "b"):
        table.add({"case": case})
    monkeypatch.setattr("nnunet_ext.commands.predict.predict_folder", press_ctrl_c)
    assert main(["predict", "-i", "images", "-o", str(tmp_path), "-m", "model", "-device", "cpu"]) == INTERRUPTED
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"nnunet_ext predict: interrupted. 2 cases are complete in {tmp_path};")
    assert "--continue_prediction" in line


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("evaluate.evaluate_predictions", ["evaluate", "labels", "results"]),
        ("calibrate.calibrate_model", ["calibrate", "-m", "model", "-device", "cpu"]),
        ("report.report_folder", ["report", "results"]),
        ("demo.run_demo", ["demo"]),
    ],
)
def test_other_commands_end_with_one_line(function, arguments, monkeypatch, capsys):
    monkeypatch.setattr(f"nnunet_ext.commands.{function}", press_ctrl_c)
    assert main(arguments) == INTERRUPTED
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == f"nnunet_ext {arguments[0]}: interrupted. Run the command again."


def test_a_training_is_continued(monkeypatch, capsys):
    monkeypatch.setattr("nnunetv2.run.run_training.run_training_entry", press_ctrl_c)
    monkeypatch.setattr("sys.argv", ["nnunet_ext"])
    monkeypatch.setenv("nnUNet_extTrainer", "")
    assert main(["train", "1", "2d", "0"]) == INTERRUPTED
    assert "with --c" in capsys.readouterr().err
